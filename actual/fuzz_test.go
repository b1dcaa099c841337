// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
)

// obeyed says whether a terminal would do something.
func obeyed(r rune) bool { return unicode.IsControl(r) && r != 0x7f }

func checkDecoded(t *testing.T, r *Record) {
	t.Helper()
	if !ValidID(r.Name) || r.UID == "" || r.Version != RecordVersion || r.Attempt < 0 || len(r.Containers) != 1 || r.App().Name != AppName || r.App().Failures < 0 {
		t.Fatalf("accepted %+v", r)
	}
	for _, id := range []*process.Identity{r.Sentry, r.Gofer} {
		if id != nil && (id.PID <= 1 || id.PID > 1<<22) {
			t.Fatalf("accepted %+v", id)
		}
	}
	b, err := EncodeRecord(r)
	if err != nil {
		if len(b) == 0 && strings.Contains(err.Error(), "at most") {
			return // it has grown: characters that are escaped
		}
		t.Fatal(err)
	}
	back, err := DecodeRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := EncodeRecord(back); err != nil || !bytes.Equal(again, b) {
		t.Fatalf("%v\n%s\n%s", err, b, again)
	}
}

// Whatever is in a record: an error, or a record that names no process but one
// of a sandbox, and comes back as it is.
func FuzzDecodeRecord(f *testing.F) {
	b, err := EncodeRecord(sample("web"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(head))
	body, err := json.Marshal(sample("web"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	for _, pid := range []string{"-1", "0", "1", "2147483648", "1e9", `"7"`, "null", "[]", "4194305"} {
		f.Add([]byte(strings.Replace(string(body), `"pid":100`, `"pid":`+pid, 1)))
	}
	for _, version := range []string{"0", "1", "3", "4", "5", "999", "-1", `"2"`, "2.5"} {
		f.Add([]byte(strings.Replace(string(body), fmt.Sprintf(`"version":%d`, RecordVersion), `"version":`+version, 1)))
	}
	for _, name := range []string{"..", ".", "-rf", "a/b", "", `\u0000`, "WEB"} {
		f.Add([]byte(strings.Replace(string(body), `"web"`, `"`+name+`"`, 1)))
	}
	for _, containers := range []string{`[]`, `null`, `[{"name":"app"},{"name":"app"}]`, `[{"name":"sidecar"}]`, `[null]`} {
		f.Add([]byte(`{"version":5,"name":"web","uid":"u","phase":"Stopped","containers":` + containers + `}`))
		f.Add([]byte(`{"version":2,"name":"web","uid":"u","phase":"Stopped","container":` + containers + `,"ending":{"exit":` + containers + `}}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeRecord(b); err == nil {
			checkDecoded(t, r)
		}
		// The same body under a right checksum reaches the decoder proper.
		if r, err := DecodeRecord(reseal(string(b))); err == nil {
			checkDecoded(t, r)
		}
	})
}

// Whatever a sentry writes as its exit record: nothing, or an exit that can be
// shown, and recorded in any time zone.
func FuzzDecodeExit(f *testing.F) {
	b, err := EncodeExit(ExitRecord{UID: "u", Attempt: 1, Status: 9, At: time.Unix(1700000000, 1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, status := range []string{"0", "256", "127", "65407", "4294967295", "-1", "1e9", "4294967296"} {
		f.Add([]byte(strings.Replace(string(b), `"status":9`, `"status":`+status, 1)))
	}
	for _, at := range []string{"9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z", "not a time"} {
		f.Add([]byte(`{"uid":"u","attempt":1,"status":0,"at":"` + at + `"}`))
	}
	f.Add(append(b, b...))
	f.Add([]byte(`{"uid":"u","attempt":1,"status":0,"message":"\u001b[2J"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := decodeExit(b, "u", 1)
		if err != nil {
			if strings.ContainsFunc(err.Error(), obeyed) {
				t.Fatalf("%q", err)
			}
			return
		}
		if x == nil {
			return
		}
		if x.Code < 0 || x.Code > 255 || !x.Known || x.Permanent || x.Signal < 0 || x.Signal > 127 || strings.ContainsFunc(x.Message+x.Reason, unicode.IsControl) {
			t.Fatalf("accepted %+v", x)
		}
		for _, at := range []time.Time{x.At, x.At.Local(), x.At.In(time.FixedZone("", 14*3600))} {
			r := sample("web")
			r.App().LastExit = new(*x)
			r.App().LastExit.At = at
			if _, err := EncodeRecord(r); err != nil {
				t.Fatalf("%+v can't be recorded: %v", x, err)
			}
		}
	})
}

// A file of requests of any name and content is a request of that name or none,
// and asks for nothing of something that is no sandbox.
func FuzzRequest(f *testing.F) {
	f.Add("restart.web.json", []byte(`{"kind":"restart","name":"web","token":"t"}`))
	f.Add("restart.web.json", []byte(`{"kind":"restart","name":"db","token":"t"}`))
	f.Add("approve.json", []byte(`{"kind":"approve","token":"t","names":["a","..","-rf"]}`))
	f.Add("restart....json", []byte(`{"kind":"restart","name":"..","token":"t"}`))
	f.Add("restart.web.json", []byte(`{"kind":"restart","name":"web","token":"t","checkpoint":"../../etc"}`))
	f.Add("restart.web.json", []byte(`{"kind":"restart","name":"web","token":"t"}{}`))
	f.Add(".json", []byte(`{}`))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		r, err := decodeRequest(name, content)
		if err != nil {
			return
		}
		if want, err := requestName(r); err != nil || want != name || r.Name != "" && !ValidName(r.Name) {
			t.Fatalf("%q is taken for %+v", name, r)
		}
		b, err := json.Marshal(r)
		must(t, err)
		if again, err := decodeRequest(name, b); err != nil || fmt.Sprint(again) != fmt.Sprint(r) {
			t.Fatalf("%+v, before %+v: %v", again, r, err)
		}
	})
}

// Whatever the file says of a daemon: it is alive only if it is this very
// process.
func FuzzDaemonInfo(f *testing.F) {
	self := os.Getpid()
	fd, err := unix.PidfdOpen(self, 0)
	if err != nil {
		f.Fatal(err)
	}
	defer unix.Close(fd)
	id, err := process.Identify(fd, self)
	if err != nil {
		f.Fatal(err)
	}
	b, err := json.Marshal(DaemonInfo{Version: "v", Process: id, ManifestsDir: "/m", Policy: json.RawMessage(`{}`), Memory: json.RawMessage(`{}`)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, pid := range []string{"-1", "0", "1", "2", "99999999999999999999", "null"} {
		f.Add([]byte(strings.Replace(string(b), fmt.Sprintf(`"pid":%d`, self), `"pid":`+pid, 1)))
	}
	f.Add([]byte(strings.Replace(string(b), `"inode":`, `"inode":1`, 1)))
	f.Add([]byte("null"))
	f.Add([]byte("[]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, live, err := decodeDaemonInfo(b)
		if err != nil {
			if live == process.Alive || strings.ContainsFunc(err.Error(), obeyed) {
				t.Fatalf("%v %q", live, err)
			}
			return
		}
		if live == process.Alive && (d.Process.PID <= 1 || d.Process.BootID != id.BootID) {
			t.Fatalf("%+v lives", d.Process)
		}
		enc, err := json.Marshal(d)
		must(t, err)
		if _, again, err := decodeDaemonInfo(enc); err != nil || again != live {
			t.Fatalf("%v, before %v: %v", again, live, err)
		}
	})
}

// The journal keeps what it is given, however long it is.
func TestLongEvent(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	j, err := s.OpenJournal()
	must(t, err)
	defer j.Close()
	must(t, j.Append(Event{Type: EventNormal, Reason: "Long", Message: strings.Repeat("\x01é", maxEvent)}))
	must(t, j.Append(Event{Type: EventNormal, Reason: "Short", Message: "m"}))
	r := s.ReadEvents()
	defer r.Close()
	var got []string
	must(t, r.Next(func(e Event) error {
		got = append(got, e.Reason)
		return nil
	}))
	if !slices.Equal(got, []string{"Long", "Short"}) {
		t.Errorf("%q", got)
	}
}

// pausing is a file that is at its end for a moment after cut bytes.
type pausing struct {
	b   []byte
	cut int
}

func (p *pausing) Read(to []byte) (int, error) {
	if p.cut == 0 || len(p.b) == 0 {
		p.cut = -1
		return 0, io.EOF
	}
	n := len(p.b)
	if p.cut > 0 {
		n = min(n, p.cut)
	}
	n = copy(to, p.b[:n])
	p.b = p.b[n:]
	if p.cut > 0 {
		p.cut -= n
	}
	return n, nil
}

// A journal with anything in it, read in two steps, gives what it gives at once:
// the events of lines that are ours.
func FuzzEvents(f *testing.F) {
	line := []byte("{\"at\":\"2026-01-02T03:04:05Z\",\"type\":\"Normal\",\"reason\":\"Started\",\"message\":\"m\"}\n")
	f.Add(line, 5)
	f.Add(append([]byte("\x00\n\n{}\n[]\nnull\n{\"reason\":1}\n"), line...), 7)
	f.Add([]byte("{\"reason\":\"Torn\""), 3)
	f.Add(append([]byte(strings.Repeat("x", maxEvent+10)+"\n"), line...), maxEvent)
	f.Add(append([]byte(strings.Repeat("x", 3*maxEvent)), line...), 2*maxEvent+1)
	f.Add(append([]byte(strings.Repeat("x", 2*maxEvent)), line...), maxEvent+5)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		read := func(cut int) (out []string) {
			r := &EventReader{buf: bufio.NewReaderSize(&pausing{b, cut}, maxEvent)}
			for range 2 {
				must(t, r.drain(func(e Event) error {
					if e.Reason == "" {
						t.Fatalf("%+v is no event", e)
					}
					out = append(out, fmt.Sprint(e))
					return nil
				}))
			}
			return out
		}
		whole := read(-1)
		if len(whole) > bytes.Count(b, []byte{'\n'}) {
			t.Fatalf("%d events of %d lines", len(whole), bytes.Count(b, []byte{'\n'}))
		}
		if got := read(max(0, min(cut, len(b)))); !slices.Equal(got, whole) {
			t.Fatalf("cut at %d: %q, at once %q", cut, got, whole)
		}
	})
}
