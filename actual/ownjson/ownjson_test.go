// SPDX-License-Identifier: Apache-2.0

package ownjson_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"testing"
	"time"

	"sandboxctl.dev/actual/ownjson"
)

type base struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino,omitempty"`
}

// Embedded is a struct whose fields are those of another.
type Embedded struct {
	Suspend bool     `json:"suspend,omitempty"`
	Grace   *grace   `json:"grace,omitempty"`
	Limit   *int     `json:"limit,omitempty"`
	Words   []string `json:"words,omitempty"`
}

// grace has a form of its own.
type grace time.Duration

func (g *grace) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	d, err := time.ParseDuration(s)
	*g = grace(d)
	return err
}

func (g grace) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(g).String()) }

type everything struct {
	Text    string            `json:"text"`
	Kind    kind              `json:"kind,omitempty"`
	Small   int8              `json:"small"`
	Big     int64             `json:"big,omitempty"`
	Count   uint32            `json:"count"`
	Share   float64           `json:"share"`
	Yes     bool              `json:"yes"`
	At      time.Time         `json:"at,omitzero"`
	Raw     json.RawMessage   `json:"raw,omitempty"`
	Below   *base             `json:"below,omitempty"`
	List    []base            `json:"list,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	ByName  map[string]base   `json:"byName,omitempty"`
	Lists   [][]string        `json:"lists,omitempty"`
	Hidden  string            `json:"-"`
	Unnamed string
	Embedded
	Last string `json:"last,omitempty"`
}

type kind string

// slowly is how the text is read without this package.
func slowly(text []byte) (*everything, error) {
	v := new(everything)
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows it: %w", err)
	}
	return v, nil
}

func written(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func full() *everything {
	return &everything{
		Text: `a "quoted" <b> line` + "\n\x00é\u2028", Kind: "k", Small: -128, Big: math.MinInt64, Count: 1<<32 - 1, Share: 1.5e-9, Yes: true,
		At: time.Date(2026, 11, 27, 8, 0, 0, 5, time.UTC), Raw: json.RawMessage(`{"a":[1,-2.5e+3,null,true,"x\u00e9"],"b":{}}`), Below: &base{1, 2},
		List: []base{{1, 0}, {2, 3}}, Labels: map[string]string{"a": "b", "c\"d": ""}, ByName: map[string]base{"x": {7, 8}}, Lists: [][]string{{"a"}, {}},
		Unnamed: "u", Embedded: Embedded{Suspend: true, Grace: new(grace(time.Minute)), Limit: new(0), Words: []string{"", "é"}}, Last: "l",
	}
}

// What was written is read, and as encoding/json reads it.
func TestOwn(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]*everything{"empty": {}, "full": full(), "no raw": {Raw: nil, List: []base{}}} {
		for _, end := range []string{"", "\n"} {
			text := append(written(t, v), end...)
			want, err := slowly(text)
			if err != nil {
				t.Fatal(err)
			}
			got := new(everything)
			if !ownjson.Try(text, got) || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got\n%+v\nexpected\n%+v\nof %s", name, got, want, text)
			}
		}
	}
}

// Any other text is left to encoding/json: what differs in one byte, is cut short,
// names a field twice, in other letters, in another place or not at all.
func TestOthers(t *testing.T) {
	t.Parallel()
	text := written(t, full())
	same := 0
	check := func(text []byte) {
		t.Helper()
		got := new(everything)
		if !ownjson.Try(text, got) {
			return
		}
		same++
		if want, err := slowly(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n%+v\nencoding/json: %v\n%+v", text, got, err, want)
		}
	}
	for i := range text {
		check(text[:i])
		for _, c := range []byte("\x00\n \"\\{}[],:0-.eEntf1aZ\x80\xff") {
			b := bytes.Clone(text)
			b[i] = c
			check(b)
			check(append(append(bytes.Clone(text[:i]), c), text[i:]...))
		}
		check(append(bytes.Clone(text[:i]), text[i+1:]...))
	}
	if same == 0 {
		t.Error("no change of a string was read")
	}
	const least = `"small":0,"count":0,"share":0,"yes":false,"Unnamed":""`
	for _, refused := range []string{
		"", "null", "{}x", "[]", `{"text":"",` + least + `} `, ` {"text":"",` + least + `}`, `{"text":null,` + least + `}`,
		`{"text":"","text":"",` + least + `}`, `{"Text":"",` + least + `}`, `{` + least + `,"text":""}`, `{"text":"","nosuch":1,` + least + `}`,
		`{"text":"",` + least + `,"last":"","last":""}`, `{"text":"",` + least + `,}`, `{"text":"",,` + least + `}`,
		`{"text":"\xff",` + least + `}`, "{\"text\":\"\xff\"," + least + `}`, `{"text":"","small":128,"count":0,"share":0,"yes":false,"Unnamed":""}`,
		`{"text":"","small":1.0,"count":0,"share":0,"yes":false,"Unnamed":""}`, `{"text":"","small":01,"count":0,"share":0,"yes":false,"Unnamed":""}`,
		`{"text":"","small":0,"count":-1,"share":0,"yes":false,"Unnamed":""}`, `{"text":"","small":0,"count":-0,"share":0,"yes":false,"Unnamed":""}`, `{"text":"","small":0,"count":4294967296,"share":0,"yes":false,"Unnamed":""}`,
		`{"text":"","small":0,"big":9223372036854775808,"count":0,"share":0,"yes":false,"Unnamed":""}`, `{"text":"","small":0,"count":0,"share":1e999,"yes":false,"Unnamed":""}`,
		`{"text":"","small":0,"count":0,"share":0,"yes":false,"raw":null,"Unnamed":""}`, `{"text":"",` + least + `,"hidden":"x"}`,
	} {
		if got := new(everything); ownjson.Try([]byte(refused), got) {
			t.Errorf("%q was read: %+v", refused, got)
		}
	}
	deep := bytes.Repeat([]byte("["), 1<<20)
	if ownjson.Try(deep, new([][]string)) || ownjson.Try([]byte(`{"text":"","small":0,"count":0,"share":0,"yes":false,"raw":`+string(deep)), new(everything)) {
		t.Error("brackets without end were read")
	}
}

// Types that encoding/json has other rules for are left to it.
func TestOtherTypes(t *testing.T) {
	t.Parallel()
	for _, v := range []any{
		new([]byte), new(any), new(map[int]string), new([2]string), new(struct {
			N int `json:"n,string"`
		}), new(struct{ *base }), new(struct {
			base
			Dev int `json:"DEV"`
		}), new(struct {
			base
			Dev int `json:"dev"`
		}), new(float32), new(complex64),
	} {
		for _, text := range []string{`"AAAA"`, `1`, `{"1":"a"}`, `["a","b"]`, `{"n":"1"}`, `{"dev":1}`, `{"dev":1,"DEV":2}`, `{}`} {
			if ownjson.Try([]byte(text), v) {
				t.Errorf("%T was read of %s", v, text)
			}
		}
	}
	if ownjson.Try([]byte("{}"), everything{}) || ownjson.Try([]byte("{}"), (*everything)(nil)) {
		t.Error("a value that can't be filled was")
	}
}

// Unmarshal is json.Unmarshal, whatever the form is and whatever was read until it failed.
func TestUnmarshal(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		string(written(t, full())), `{ "text": "a" }`, `{"text":"a","nosuch":1}`, `{"TEXT":"a","last":"b"}`, `{"text":"a","text":"b"}`, `{"text":"a","small":"b"}`, `{"text":"a"`, "null", "",
	} {
		var got, want everything
		err, wantErr := ownjson.Unmarshal([]byte(text), &got), json.Unmarshal([]byte(text), &want)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\n%+v\nencoding/json: %v\n%+v", text, err, got, wantErr, want)
		}
	}
}

func FuzzOwn(f *testing.F) {
	f.Add(written(f, full()))
	f.Add(written(f, new(everything)))
	f.Fuzz(func(t *testing.T, text []byte) {
		got := new(everything)
		if !ownjson.Try(text, got) {
			return
		}
		if want, err := slowly(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n%+v\nencoding/json: %v\n%+v", text, got, err, want)
		}
	})
}
