// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"cmp"
	"maps"
	"path"
	"slices"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/yamldoc"
)

// index puts together what all files of the directory say. Each look puts in only the
// files that changed, so that one change costs the same among ten files and among ten
// thousand. A look at everything and a look at what notifications name share it.
type index struct {
	files map[string]*fileEntry // by path relative to the directory
	// entries are the names that have one definition, sorted by name. The slice is part
	// of snapshots: it is replaced and never modified.
	entries []desired.Entry
	defs    map[string][]*desired.Entry // the definitions of each name, by file and line
	twice   map[string]bool             // names that have more than one
	told    map[string][]string         // key → files with a problem about it, sorted
	odd     map[string]*fileEntry       // files that say more than their entries
	dirs    map[string]*tally           // by path, the top is "."
	walk    []desired.Problem           // of the last look at everything: what is not a file

	revision uint64          // counts the changes of what the files say
	stale    map[string]bool // names whose definitions changed and entries not yet
	changed  map[string]bool // keys that may have come or gone since absences saw them
}

// tally counts the files below a directory.
type tally struct{ defines, concerns int }

// A key is what can be absent: the name of a sandbox, or keyOf a file that has a
// problem without a name and may be about any sandbox. No name has a slash.
func keyOf(file string) string { return "/" + file }

func newIndex() *index {
	return &index{
		files: map[string]*fileEntry{}, defs: map[string][]*desired.Entry{}, twice: map[string]bool{}, told: map[string][]string{},
		odd: map[string]*fileEntry{}, dirs: map[string]*tally{}, stale: map[string]bool{}, changed: map[string]bool{},
	}
}

// put takes in what the file at a path says now, nil if there is none.
func (x *index) put(p string, e *fileEntry) {
	old := x.files[p]
	if old == e {
		return
	}
	x.count(old, -1)
	x.count(e, 1)
	delete(x.odd, p)
	if e == nil {
		delete(x.files, p)
	} else {
		x.files[p] = e
		if e.odd() {
			x.odd[p] = e
		}
	}
	if old.says(e) {
		return
	}
	x.revision++
	if e == nil {
		x.changed[keyOf(p)] = true // it may have had a problem once
	}
	if old != nil {
		x.withdraw(old)
	}
	if e != nil {
		x.enter(e)
	}
}

func (x *index) withdraw(e *fileEntry) {
	for i := range e.entries {
		def := &e.entries[i]
		n := def.Sandbox.Metadata.Name
		x.stale[n], x.changed[n] = true, true
		left := slices.DeleteFunc(slices.Clone(x.defs[n]), func(d *desired.Entry) bool { return d.Source == def.Source })
		if x.defs[n] = left; len(left) == 0 {
			delete(x.defs, n)
		}
	}
	x.untell(e.problems)
	x.tell(x.walk) // which may tell the same of it
}

func (x *index) enter(e *fileEntry) {
	for i := range e.entries {
		def := &e.entries[i]
		n := def.Sandbox.Metadata.Name
		x.stale[n], x.changed[n] = true, true
		x.defs[n] = append(x.defs[n], def)
		slices.SortFunc(x.defs[n], func(a, b *desired.Entry) int {
			return cmp.Or(cmp.Compare(a.Source.File, b.Source.File), cmp.Compare(a.Source.Line, b.Source.Line), cmp.Compare(a.Source.Column, b.Source.Column))
		})
	}
	x.tell(e.problems)
}

// problemKey is what a problem keeps from being absent, "" if nothing.
func problemKey(p *desired.Problem) string {
	if p.Name != "" || p.File == "" {
		return p.Name
	}
	return keyOf(p.File)
}

func (x *index) tell(ps []desired.Problem) {
	for i := range ps {
		k, file := problemKey(&ps[i]), ps[i].File
		if k == "" {
			continue
		}
		x.changed[k] = true
		if at, found := slices.BinarySearch(x.told[k], file); !found {
			x.told[k] = slices.Insert(x.told[k], at, file)
		}
	}
}

func (x *index) untell(ps []desired.Problem) {
	for i := range ps {
		k, file := problemKey(&ps[i]), ps[i].File
		if k == "" {
			continue
		}
		x.changed[k] = true
		if at, found := slices.BinarySearch(x.told[k], file); found {
			if x.told[k] = slices.Delete(x.told[k], at, at+1); len(x.told[k]) == 0 {
				delete(x.told, k)
			}
		}
	}
}

// walked takes in what a look at everything found that is not a file to be read.
func (x *index) walked(ps []desired.Problem) {
	if slices.Equal(ps, x.walk) {
		return
	}
	x.revision++
	x.untell(x.walk)
	x.walk = ps
	// A file may have told the same.
	for _, f := range x.odd {
		x.tell(f.problems)
	}
	x.tell(ps)
}

// present says whether a key is there, and in which file.
func (x *index) present(key string) (file string, there bool) {
	if told := x.told[key]; len(told) > 0 {
		return told[len(told)-1], true
	}
	if defs := x.defs[key]; len(defs) > 0 {
		return defs[len(defs)-1].Source.File, true
	}
	return "", false
}

// count adds a file to the tallies of the directories that it is in.
func (x *index) count(e *fileEntry, by int) {
	if e == nil {
		return
	}
	for p := path.Dir(e.path); ; p = path.Dir(p) {
		t := x.dirs[p]
		if t == nil {
			t = new(tally)
			x.dirs[p] = t
		}
		if e.defines() {
			t.defines += by
		}
		if e.concerns() {
			t.concerns += by
		}
		if *t == (tally{}) {
			delete(x.dirs, p)
		}
		if p == "." {
			return
		}
	}
}

// below counts the files below a directory.
func (x *index) below(dir string) tally {
	if t := x.dirs[dir]; t != nil {
		return *t
	}
	return tally{}
}

// all returns the names that have one definition. Of two
// definitions neither counts: which one is meant is not ours to guess, and the sandbox
// keeps what it has.
func (x *index) all() []desired.Entry {
	if len(x.stale) == 0 {
		return x.entries
	}
	out := make([]desired.Entry, 0, len(x.entries)+len(x.stale))
	rest := x.entries
	for _, n := range slices.Sorted(maps.Keys(x.stale)) {
		i, found := slices.BinarySearchFunc(rest, n, func(e desired.Entry, n string) int { return cmp.Compare(e.Sandbox.Metadata.Name, n) })
		out = append(out, rest[:i]...)
		if found {
			i++
		}
		rest = rest[i:]
		delete(x.twice, n)
		switch defs := x.defs[n]; len(defs) {
		case 0:
		case 1:
			out = append(out, *defs[0])
		default:
			x.twice[n] = true
		}
	}
	out = append(out, rest...)
	x.entries = out
	clear(x.stale)
	return x.entries
}

// problems returns what is wrong, sorted.
func (x *index) problems() []desired.Problem {
	out := slices.Clone(x.walk)
	for _, f := range x.odd {
		out = append(out, f.problems...)
	}
	for n := range x.twice {
		defs := x.defs[n]
		out = append(out, desired.DuplicateProblem(defs[0].Source, n, defs[1].Source))
		for _, d := range defs[1:] {
			out = append(out, desired.DuplicateProblem(d.Source, n, defs[0].Source))
		}
	}
	yamldoc.SortProblems(out)
	return out
}

// oddFiles are the files that say more than their entries, sorted.
func (x *index) oddFiles() []*fileEntry {
	return slices.SortedFunc(maps.Values(x.odd), func(a, b *fileEntry) int { return cmp.Compare(a.path, b.path) })
}

// odd says whether a file says more than its entries.
func (e *fileEntry) odd() bool {
	return len(e.problems) > 0 || e.foreign != nil || e.unsettled || e.unread
}

// says reports whether two versions of a file say the same.
func (e *fileEntry) says(o *fileEntry) bool {
	if e == nil || o == nil {
		return e == o
	}
	return slices.EqualFunc(e.entries, o.entries, func(a, b desired.Entry) bool { return a.Sandbox == b.Sandbox && a.Source == b.Source }) &&
		slices.Equal(e.problems, o.problems) && e.unsettled == o.unsettled && sameWarning(e.foreign, o.foreign)
}

func sameWarning(a, b *desired.Warning) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Position == b.Position && a.Message == b.Message && slices.Equal(a.Names, b.Names)
}
