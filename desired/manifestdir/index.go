// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"cmp"
	"iter"
	"maps"
	"path"
	"slices"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/sizes"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/desired/yamldoc"
)

// fileEntry is what one file said when it was last read.
type fileEntry struct {
	path     string
	id       trustedfile.ID
	policy   string // the digest of what it was judged by
	entries  []desired.Entry
	objects  []desired.Object
	sizes    []sizes.Size // that they give named volumes
	problems []desired.Problem
	foreign  *desired.Warning // of documents for other programs
	exposed  *desired.Warning // of secrets that others may read
	// unsettled says that somebody had it open for writing: entries are those
	// of before.
	unsettled bool
	// unread says that the system refused to read it.
	unread bool
	// look is when it was first read as it is, counted in looks at the directory.
	look int
	// names are what a file with problems may mean by names of sandboxes.
	names map[string]bool
}

// index puts together what all files of the directory say. Each look puts in only the
// files that changed, so that one change costs the same among ten files and among ten
// thousand. A look at everything and a look at what notifications name share it.
type index struct {
	files map[string]*fileEntry // by path relative to the directory
	// entries and objects are the names that have one definition, sorted by name. The
	// slices are part of snapshots: they are replaced and never modified.
	entries []desired.Entry
	objects desired.Objects
	defs    map[string][]definition // the definitions of each full name, by file and line
	twice   map[string]bool         // names that have more than one
	told    map[string][]string     // key → files with a problem about it, sorted
	odd     map[string]*fileEntry   // files that say more than their entries
	dirs    map[string]*tally       // by path, the top is "."
	walk    []desired.Problem       // of the last look at everything: what is not a file

	revision  uint64                // counts the changes of what the files say
	sized     map[string]*fileEntry // files that give volumes sizes
	resized   bool                  // conflicts are not those of sized
	conflicts []desired.Problem     // sizes that differ
	sizes     []sizes.Size          // all of them, by file
	stale     map[string]bool       // names whose definitions changed and entries not yet
	changed   map[string]bool       // keys that may have come or gone since absences saw them
}

// definition is what one document says of a full name: one of both.
type definition struct {
	entry  *desired.Entry
	object *desired.Object
}

func (d definition) source() desired.Position {
	if d.entry != nil {
		return d.entry.Source
	}
	return d.object.Source
}

// definitions are those of the valid documents of a file, by full name.
func (e *fileEntry) definitions() iter.Seq2[string, definition] {
	return func(yield func(string, definition) bool) {
		for i := range e.entries {
			if !yield(nameOf(&e.entries[i]), definition{entry: &e.entries[i]}) {
				return
			}
		}
		for i := range e.objects {
			if !yield(e.objects[i].Name(), definition{object: &e.objects[i]}) {
				return
			}
		}
	}
}

// expose warns of a file with a Secret that every user of the host may read.
func (e *fileEntry) expose(mode uint32) {
	secret := slices.ContainsFunc(e.objects, func(o desired.Object) bool {
		kind, _, _ := objects.Split(o.Name())
		return kind == objects.Secret
	})
	if secret && mode&0o004 != 0 {
		e.exposed = &desired.Warning{Exposed: true, Position: desired.Position{File: e.path}, Message: "every user of this host may read it, and it has a Secret; `chmod 600` it"}
	}
}

func nameOf(e *desired.Entry) string { return e.Sandbox.Metadata.Name }

// tally counts the files below a directory.
type tally struct{ defines, concerns int }

// A key is what can be absent: the full name of a sandbox or an object, or keyOf a file
// that has a problem without a name and may be about any sandbox. No name begins with a
// slash.
func keyOf(file string) string { return "/" + file }

func newIndex() *index {
	return &index{
		files: map[string]*fileEntry{}, defs: map[string][]definition{}, twice: map[string]bool{}, told: map[string][]string{}, sized: map[string]*fileEntry{},
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
	if delete(x.sized, p); e != nil && len(e.sizes) > 0 {
		x.sized[p] = e
	}
	x.resized = x.resized || len(x.sized)+len(x.sizes) > 0
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
	for n, def := range e.definitions() {
		x.stale[n], x.changed[n] = true, true
		left := slices.DeleteFunc(slices.Clone(x.defs[n]), func(d definition) bool { return d.source() == def.source() })
		if x.defs[n] = left; len(left) == 0 {
			delete(x.defs, n)
		}
	}
	x.untell(e.problems)
	x.tell(x.walk) // which may tell the same of it
}

func (x *index) enter(e *fileEntry) {
	for n, def := range e.definitions() {
		x.stale[n], x.changed[n] = true, true
		x.defs[n] = append(x.defs[n], def)
		slices.SortFunc(x.defs[n], func(a, b definition) int {
			p, q := a.source(), b.source()
			return cmp.Or(cmp.Compare(p.File, q.File), cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column))
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
		return defs[len(defs)-1].source().File, true
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

// resolve returns the names that have one definition. Of two definitions neither counts:
// which one is meant is not ours to guess, and the sandbox keeps what it has.
func (x *index) resolve() ([]desired.Entry, desired.Objects) {
	if len(x.stale) == 0 {
		return x.agreed(), x.objects
	}
	var sandboxes, others []string
	for _, n := range slices.Sorted(maps.Keys(x.stale)) {
		if delete(x.twice, n); len(x.defs[n]) > 1 {
			x.twice[n] = true
		}
		if desired.ValidName(n) {
			sandboxes = append(sandboxes, n)
		} else {
			others = append(others, n)
		}
	}
	x.entries = replaced(x, x.entries, sandboxes, nameOf, func(d definition) *desired.Entry { return d.entry })
	x.objects = replaced(x, x.objects, others, func(o *desired.Object) string { return o.Name() }, func(d definition) *desired.Object { return d.object })
	clear(x.stale)
	return x.agreed(), x.objects
}

// agreed are the sandboxes that give no volume another size than others do.
func (x *index) agreed() []desired.Entry {
	differ := map[string]bool{}
	for _, p := range x.disagreements() {
		differ[p.Name] = true
	}
	if len(differ) == 0 {
		return x.entries
	}
	return slices.DeleteFunc(slices.Clone(x.entries), func(e desired.Entry) bool { return differ[nameOf(&e)] })
}

// disagreements are the sizes of volumes that differ.
func (x *index) disagreements() []desired.Problem {
	if x.resized {
		var all []sizes.Size
		for _, p := range slices.Sorted(maps.Keys(x.sized)) {
			all = append(all, x.sized[p].sizes...)
		}
		x.sizes, x.conflicts, x.resized = all, sizes.Conflicts(all), false
	}
	return x.conflicts
}

// replaced is a sorted list with what the index has now of some names, which are sorted.
func replaced[T any](x *index, list []T, names []string, nameOf func(*T) string, of func(definition) *T) []T {
	if len(names) == 0 {
		return list
	}
	out := make([]T, 0, len(list)+len(names))
	for _, n := range names {
		i, found := slices.BinarySearchFunc(list, n, func(e T, n string) int { return cmp.Compare(nameOf(&e), n) })
		out = append(out, list[:i]...)
		if found {
			i++
		}
		list = list[i:]
		if defs := x.defs[n]; len(defs) == 1 {
			out = append(out, *of(defs[0]))
		}
	}
	return append(out, list...)
}

// problems returns what is wrong, sorted.
func (x *index) problems() []desired.Problem {
	out := slices.Clone(x.walk)
	for _, f := range x.odd {
		out = append(out, f.problems...)
	}
	for n := range x.twice {
		defs := x.defs[n]
		out = append(out, desired.DuplicateProblem(defs[0].source(), n, defs[1].source()))
		for _, d := range defs[1:] {
			out = append(out, desired.DuplicateProblem(d.source(), n, defs[0].source()))
		}
	}
	for _, p := range x.disagreements() {
		// Of two documents of one file that is told with the file.
		if f := x.files[p.File]; f == nil || !slices.ContainsFunc(f.problems, func(q desired.Problem) bool { return q.Position == p.Position && q.Field == p.Field }) {
			out = append(out, p)
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
	return len(e.problems) > 0 || e.foreign != nil || e.exposed != nil || e.unsettled || e.unread
}

// says reports whether two versions of a file say the same.
func (e *fileEntry) says(o *fileEntry) bool {
	if e == nil || o == nil {
		return e == o
	}
	return slices.EqualFunc(e.entries, o.entries, func(a, b desired.Entry) bool { return a.Sandbox == b.Sandbox && a.Source == b.Source }) &&
		slices.Equal(e.objects, o.objects) && slices.Equal(e.sizes, o.sizes) &&
		slices.Equal(e.problems, o.problems) && e.unsettled == o.unsettled && sameWarning(e.foreign, o.foreign) && sameWarning(e.exposed, o.exposed)
}

func sameWarning(a, b *desired.Warning) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Position == b.Position && a.Message == b.Message && slices.Equal(a.Names, b.Names)
}

// decoded is what a file says.
func (sc *scanner) decoded(p string, id trustedfile.ID, b []byte) *fileEntry {
	entry := &fileEntry{path: p, id: id, policy: sc.policy, look: sc.d.looks}
	docs, problems := desired.Decoder{Policy: sc.snap.Policy, Known: sc.d.opts.Known}.Decode(p, b)
	entry.problems, entry.foreign = problems, desired.ForeignWarning(p, docs)
	if len(problems) > 0 {
		entry.names = mentioned(b)
		entry.problems[0].Opaque = len(b) > yamldoc.MaxFileBytes
	}
	for _, doc := range docs {
		if doc.Sandbox != nil {
			entry.entries = append(entry.entries, doc.Entry())
		}
		if doc.Object != nil {
			entry.objects = append(entry.objects, desired.Object{Object: doc.Object, Declared: doc.Declared, Source: doc.Position})
		}
		entry.sizes = append(entry.sizes, doc.Sizes...)
	}
	return entry
}
