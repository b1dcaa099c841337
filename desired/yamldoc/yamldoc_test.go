// SPDX-License-Identifier: Apache-2.0

package yamldoc

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// recipe is a document of no kind that the project knows.
type recipe struct {
	Title string            `json:"title"`
	Serve int               `json:"serve,omitempty"`
	Hot   bool              `json:"hot,omitempty"`
	Rest  minutes           `json:"rest,omitempty"`
	Steps []step            `json:"steps,omitempty"`
	Notes map[string]string `json:"notes,omitempty"`
}

type step struct {
	Do string `json:"do"`
}

type minutes string

func (m *minutes) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil || !strings.HasSuffix(s, "m") {
		return errors.New("expected minutes such as \"5m\", got " + string(b))
	}
	*m = minutes(s)
	return nil
}

func (minutes) Quoted() {}

var recipes = &Schema{
	Type:     reflect.TypeFor[recipe](),
	Required: map[reflect.Type]map[string]string{reflect.TypeFor[recipe](): {"title": "a title"}, reflect.TypeFor[step](): {"do": "what to do"}},
	Examples: map[reflect.Type]string{reflect.TypeFor[step](): `{do: stir}`},
	Unknown: func(t reflect.Type, key, path, parent string) (string, bool) {
		return "write no wine into " + path, key == "wine" && parent == ""
	},
}

// check reads one document and returns its problems, one a line.
func check(t *testing.T, text string) (*Doc, string) {
	t.Helper()
	chunks, p := Chunks("f", []byte(text))
	if p != nil || len(chunks) != 1 {
		t.Fatalf("%q: %d documents, %v", text, len(chunks), p)
	}
	d := Parse("f", chunks[0], "a recipe")
	if d.Parsed() {
		d.Check(recipes)
	}
	var lines []string
	for _, p := range d.Problems() {
		lines = append(lines, p.Error())
	}
	return d, strings.Join(lines, "\n")
}

// Any type can be read: the package knows no kind of document.
func TestAnySchema(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"title: soup\nserve: 4\nhot: true\nrest: 5m\nsteps: [{do: boil}]\nnotes: {salt: none}\n": "",
		`{"title": "soup", "serve": 4}`: "",
		"titel: soup\n":                 "f:1:1: titel: unknown field \"titel\"; did you mean \"title\"?\nf:1:1: title: is missing: expected a title",
		"title: soup\ndo: stir\n":       "f:2:1: do: unknown field \"do\" here; it belongs to steps[]; expected here is one of hot, notes, rest, serve, steps, title",
		"title: soup\nwine: red\n":      "f:2:1: wine: write no wine into wine",
		"title: soup\nxyzzyxyzzy: 1\n":  "f:2:1: xyzzyxyzzy: unknown field \"xyzzyxyzzy\"; expected one of hot, notes, rest, serve, steps, title",
		"title: soup\nserve: four\n":    "f:2:8: serve: expected a whole number, got \"four\"",
		"title: soup\nrest: 5\n":        "f:2:7: rest: expected minutes such as \"5m\", got 5",
		"title: soup\nrest: 0\n":        "f:2:7: rest: expected minutes such as \"5m\", got 0",
		"title: soup\nrest: 5.0\n":      "f:2:7: rest: expected minutes such as \"5m\", got 5.0",
		"title: yes\n":                  "f:1:8: title: expected a string, got \"yes\"; quote it: \"yes\"",
		"title: a\ntitle: b\n":          "f:2:1: title: is given twice, first in line 1; remove one of them",
		"title: soup\nsteps: stir\n":    "f:2:8: steps: expected a list, got \"stir\"; for example steps: [{do: stir}]",
		"title: &a soup\n":              "f:1:8: anchors and aliases are not allowed; write the value out",
		"title: !!str soup\n":           "f:1:8: tags such as !!str are not allowed; quote a value that begins with an exclamation mark",
		"---\n":                         "f:1:1: the document is empty; expected a recipe (or remove the \"---\" above it)",
		"title: soup\n...\nmore: 1\n":   "f:2:1: something follows the end of the document; begin another one with \"---\" on a line of its own",
	} {
		if _, got := check(t, text); got != want {
			t.Errorf("%q:\n%s\nexpected\n%s", text, got, want)
		}
	}
}

// What is right is decoded, and problems that are found later have a place.
func TestDocDecode(t *testing.T) {
	t.Parallel()
	d, got := check(t, "# a comment\ntitle: soup\nsteps:\n- do: boil\n- do: stir\n")
	if got != "" {
		t.Fatal(got)
	}
	var r recipe
	if err := d.Decode(&r); err != nil || r.Title != "soup" || len(r.Steps) != 2 || r.Steps[1].Do != "stir" {
		t.Fatalf("%+v, %v", r, err)
	}
	d.Report("steps[1].do", "Denied", "not now")
	d.Report("steps[1].how", "", "is missing")
	d.Report("notes", "", "is missing")
	var at []string
	for _, p := range d.Problems() {
		at = append(at, p.Position.String()+" "+p.Reason)
	}
	if got := strings.Join(at, ", "); got != "f:5:3 Denied, f:5:3 , f:2:1 " {
		t.Error(got)
	}
	if v, ok := d.Scalar("title"); !ok || v != "soup" {
		t.Errorf("%q, %t", v, ok)
	}
	for _, keys := range [][]string{{"steps"}, {"serve"}, {"title", "more"}} {
		if v, ok := d.Scalar(keys...); ok || v != "" {
			t.Errorf("%v: %q", keys, v)
		}
	}
	var rest recipe
	if err := d.DecodeRest(map[string]bool{"title": true, "steps[0]": true}, &rest); err != nil || rest.Title != "" || len(rest.Steps) != 2 || rest.Steps[1].Do != "stir" {
		t.Errorf("%+v, %v", rest, err)
	}
}

// Nothing is reported without end, whatever a document holds.
func TestDocFull(t *testing.T) {
	t.Parallel()
	d, _ := check(t, "title: soup\n"+"steps: ["+strings.Repeat("{}, ", 2*MaxProblems)+"]\n")
	if n := len(d.Problems()); n != MaxProblems || !d.Full() {
		t.Errorf("%d problems", n)
	}
	d.Report("title", "", "one more")
	if n := len(d.Problems()); n != MaxProblems {
		t.Errorf("%d problems", n)
	}
}
