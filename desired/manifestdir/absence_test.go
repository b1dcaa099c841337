// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/trustedfile"
)

// step is one look at a directory, at a time.
type step struct {
	at      time.Duration
	entries string // NAME@FILE, or NAME for one in its own file
	broken  string // files with problems: FILE, FILE:NAME that is told of, FILE~NAME that is mentioned, FILE! opaque
	changed string // of these files, the ones that were read anew
	pending bool
	away    bool // the directory can't be read

	delays string        // parts of why it is not believed
	until  time.Duration // the earliest time of these
	gone   string        // what counts as removed beside problems
	forget string        // names that are not waited for any more
}

var absenceSteps = map[string]struct {
	once  bool
	steps []step
}{
	"the first look must last": {false, []step{
		{entries: "a", delays: "first time", until: 100},
		{at: 99, entries: "a", delays: "first time", until: 100},
		{at: 100, entries: "a"},
	}},
	"one look is enough if it is the only one": {true, []step{{entries: "a"}}},
	"an absence must last": {true, []step{
		{entries: "a b"},
		{at: 10, entries: "b", delays: "the manifest of a disappeared", until: 110},
		{at: 109, entries: "b", delays: "the manifest of a disappeared", until: 110},
		{at: 110, entries: "b", forget: "a"},
	}},
	"and begins anew after each return": {true, []step{
		{entries: "a"},
		{at: 10, delays: "of a disappeared", until: 110},
		{at: 50, entries: "a"},
		{at: 60, delays: "of a disappeared", until: 160},
		{at: 159, delays: "of a disappeared", until: 160},
		{at: 160, forget: "a"},
	}},
	"the earliest time counts": {true, []step{
		{entries: "a b"},
		{at: 10, entries: "b", delays: "of a disappeared", until: 110},
		{at: 40, delays: "of a disappeared, of b disappeared", until: 110},
		{at: 110, delays: "of b disappeared", until: 140, forget: "a"},
	}},
	"a clock that is set forward ends every wait": {true, []step{
		{entries: "a"},
		{at: 10, delays: "of a disappeared", until: 110},
		{at: 1e9, forget: "a"},
	}},
	"a broken file is about none of those it does not know": {true, []step{
		{entries: "a b", broken: "x", changed: "x"},
		{at: 10, entries: "b", broken: "x", delays: "of a disappeared", until: 110},
		{at: 110, entries: "b", broken: "x", gone: "a", forget: "a"},
		{at: 200, entries: "b", broken: "x", gone: "a"},
		{at: 300, entries: "a b", broken: "x"},
	}},
	"but about those that it names": {true, []step{
		{entries: "a b c", broken: "x~a y:b", changed: "x y"},
		{at: 10, entries: "", broken: "x~a y:b", delays: "of a disappeared, of c disappeared", until: 110},
		{at: 110, broken: "x~a y:b", gone: "c", forget: "a c"},
	}},
	"and about the one that it defined": {true, []step{
		{entries: "a@x b@x"},
		{at: 10, broken: "x", changed: "x", delays: "of a disappeared, of b disappeared", until: 110},
		{at: 110, broken: "x", forget: "a b"},
	}},
	"also if it defined another that is not wrong": {true, []step{
		{entries: "a@x b@x", broken: "x", changed: "x"},
		{at: 10, entries: "b@x", broken: "x", delays: "of a disappeared", until: 110},
		{at: 110, entries: "b@x", broken: "x", forget: "a"},
	}},
	"and about those that went when it came": {true, []step{
		{entries: "a b"},
		{at: 10, entries: "b", broken: "x", changed: "x", delays: "of a disappeared", until: 110},
		{at: 110, entries: "b", broken: "x", forget: "a"},
	}},
	"what changes may be about any": {true, []step{
		{entries: "a b", broken: "x", changed: "x"},
		{at: 10, entries: "b", broken: "x", delays: "of a disappeared", until: 110},
		{at: 110, entries: "b", broken: "x", gone: "a", forget: "a"},
		{at: 120, entries: "b", broken: "x", changed: "x"},
	}},
	"so may what can't be read": {true, []step{
		{entries: "a", broken: "x!", changed: "x"},
		{at: 10, broken: "x!", delays: "of a disappeared", until: 110},
		{at: 110, broken: "x!", forget: "a"},
	}},
	"nothing is decided while something is on its way": {true, []step{
		{entries: "a", broken: "x", changed: "x"},
		{at: 10, broken: "x", delays: "of a disappeared", until: 110},
		{at: 110, broken: "x", pending: true},
		{at: 120, broken: "x", gone: "a", forget: "a"},
		{at: 130, broken: "x", pending: true},
		{at: 140, broken: "x", gone: "a"},
	}},
	"a directory that was away is waited for": {false, []step{
		{entries: "a b", delays: "first time", until: 100},
		{at: 100, entries: "a b"},
		{at: 200, away: true},
		{at: 300, entries: "a", delays: "came back, of b disappeared", until: 400},
		{at: 1000, entries: "a b", delays: "came back", until: 3000},
		{at: 2999, entries: "a b", delays: "came back", until: 3000},
		{at: 3000, entries: "a b"},
	}},
	"but not by a program that looks once": {true, []step{{away: true}, {at: 10, entries: "a"}}},
}

// What is believed to be removed, in every order of coming and going: no clock is
// asked, so that no time passes.
func TestAbsences(t *testing.T) {
	t.Parallel()
	for name, c := range absenceSteps {
		a := newAbsences(100*time.Millisecond, c.once)
		start := time.Unix(1e9, 0)
		files := map[string]*fileEntry{}
		for i, s := range c.steps {
			now := start.Add(s.at * time.Millisecond)
			l := s.look(i+1, files, a.seen)
			var delays []delay
			if s.away {
				a.away(now)
			} else {
				delays = a.settle(l, now)
				l.pending = l.pending || len(delays) > 0
			}
			gone := strings.Join(a.believe(l, l.pending), " ")
			if gone != s.gone {
				t.Errorf("%s, %d: %q are removed, expected %q", name, i, gone, s.gone)
			}
			checkDelays(t, name, i, delays, s, start)
			for n := range strings.FieldsSeq(s.forget) {
				if _, waiting := a.missing[n]; waiting {
					t.Errorf("%s, %d: %s is still waited for", name, i, n)
				}
			}
		}
	}
}

func checkDelays(t *testing.T, name string, i int, delays []delay, s step, start time.Time) {
	t.Helper()
	var want []string
	if s.delays != "" {
		want = strings.Split(s.delays, ", ")
	}
	first := time.Duration(0)
	for _, d := range delays {
		if until := d.until.Sub(start) / time.Millisecond; first == 0 || until < first {
			first = until
		}
		for j, w := range want {
			if strings.Contains(d.why, w) {
				want = append(want[:j:j], want[j+1:]...)
				break
			}
		}
	}
	if len(want) > 0 || len(delays) != strings.Count(s.delays, ",")+min(len(s.delays), 1) || first != s.until {
		t.Errorf("%s, %d: %v, expected %q until %d", name, i, delays, s.delays, s.until)
	}
}

// look is what a step finds. files are those of the looks before, which it changes.
func (s *step) look(number int, files map[string]*fileEntry, seen map[string]string) *look {
	changed := map[string]bool{}
	for key := range seen {
		changed[key] = true
	}
	l := &look{number: number, files: files, pending: s.pending, changed: changed}
	found := map[string]string{}
	l.present = func(key string) (string, bool) {
		at, there := found[key]
		return at, there
	}
	there := map[string]bool{}
	file := func(p string) *fileEntry {
		there[p] = true
		if files[p] == nil {
			files[p] = &fileEntry{path: p, look: number}
		}
		return files[p]
	}
	for e := range strings.FieldsSeq(s.entries) {
		name, at, ok := strings.Cut(e, "@")
		if !ok {
			at = name + ".yaml"
		}
		file(at)
		found[name] = at
	}
	for b := range strings.FieldsSeq(s.broken) {
		p := desired.Problem{Message: "it is broken", Opaque: strings.HasSuffix(b, "!")}
		b = strings.TrimSuffix(b, "!")
		b, p.Name, _ = strings.Cut(b, ":")
		b, mentioned, _ := strings.Cut(b, "~")
		p.File = b
		file(b).names = map[string]bool{mentioned: true}
		l.problems = append(l.problems, p)
		found[problemKey(&p)] = p.File
	}
	for c := range strings.FieldsSeq(s.changed) {
		fresh := *file(c)
		fresh.look = number
		fresh.id = trustedfile.IDOf(&unix.Stat_t{Ino: uint64(number)})
		files[c] = &fresh
	}
	for p := range files {
		if !there[p] {
			delete(files, p)
		}
	}
	for key := range found {
		changed[key] = true
	}
	return l
}
