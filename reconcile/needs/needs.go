// SPDX-License-Identifier: Apache-2.0

package needs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
)

// File is what is known of a file of the host, or of a document or one of its values,
// that a manifest refers to.
type File struct {
	// ID is that of an actual.Input of it as it is now.
	ID string
	// Missing says that there is none; Problem is why that can't be told, or with Unfit why
	// it is none that can be read.
	Missing, Unfit bool
	Problem        string
	// Lacks is what exactly is missing, "" if it is the file itself.
	Lacks string
}

// Paths are the files of the host that manifests refer to, also by way of documents, each
// once. recorded are manifests on record that count while the snapshot does not have them:
// what they refer to is started and stopped for as well.
func Paths(want *desired.Snapshot, recorded map[string]*desired.Entry) []string {
	var seen map[string]bool // nil as long as there are none, which costs nothing
	for i := range want.Entries {
		seen = addPaths(seen, want, &want.Entries[i])
	}
	for _, e := range recorded {
		seen = addPaths(seen, want, e)
	}
	if seen == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(seen))
}

func addPaths(seen map[string]bool, want *desired.Snapshot, e *desired.Entry) map[string]bool {
	if e == nil {
		return seen
	}
	for _, ref := range e.Sandbox.Spec.FileRefs() {
		if seen == nil {
			seen = map[string]bool{}
		}
		name, key, is := objects.Referred(ref.Path)
		if !is {
			seen[ref.Path] = true
			continue
		}
		o := want.Objects.Lookup(name)
		for _, k := range keysOf(o, key) {
			if p := o.File(k); p != "" {
				seen[p] = true
			}
		}
	}
	return seen
}

// keysOf are the keys of an object that a reference is about: all of them, or one.
func keysOf(o *desired.Object, key string) []string {
	switch {
	case o == nil:
		return nil
	case key == "":
		return o.Keys()
	case o.Has(key):
		return []string{key}
	}
	return nil
}

// AddObjects adds what is known of the documents that manifests refer to, by the path of
// the reference, to what is known of files. recorded is that of Paths.
func AddObjects(files map[string]File, want *desired.Snapshot, recorded map[string]*desired.Entry, key objects.HostKey) map[string]File {
	for i := range want.Entries {
		files = addObjects(files, want, &want.Entries[i], key)
	}
	for _, e := range recorded {
		files = addObjects(files, want, e, key)
	}
	return files
}

func addObjects(files map[string]File, want *desired.Snapshot, e *desired.Entry, key objects.HostKey) map[string]File {
	if e == nil {
		return files
	}
	for _, ref := range e.Sandbox.Spec.FileRefs() {
		name, k, is := objects.Referred(ref.Path)
		if _, known := files[ref.Path]; !is || known {
			continue
		}
		if files == nil {
			files = map[string]File{}
		}
		files[ref.Path] = object(files, want, name, k, key)
	}
	return files
}

// object is what is known of one reference to a document.
func object(files map[string]File, want *desired.Snapshot, name, key string, host objects.HostKey) File {
	o := want.Objects.Lookup(name)
	if o == nil {
		return Absent(want, name)
	}
	keys := keysOf(o, key)
	if key != "" && len(keys) == 0 {
		return File{Missing: true, Lacks: fmt.Sprintf("%s (%s) has no key %q", desired.Described(name), o.Source, key)}
	}
	f := File{}
	for _, k := range keys {
		p := o.File(k)
		of, known := files[p]
		switch {
		case p == "" || !known:
		case of.Problem != "":
			return File{Unfit: of.Unfit, Problem: p + ", which has its " + k + ", can't be used: " + of.Problem}
		case of.Missing:
			f.Missing, f.Lacks = true, fmt.Sprintf("%s (%s): %s, which has its %s, does not exist", desired.Described(name), o.Source, p, k)
		}
	}
	f.ID = o.ID(host, keys, func(p string) string { return files[p].ID })
	return f
}

// Absent says why there is no document of a name. A problem of its own is told first; one
// that may be about it, and a directory that is not whole, make its absence no fact.
func Absent(want *desired.Snapshot, name string) File {
	unnamed := ""
	for i := range want.Problems {
		switch p := &want.Problems[i]; p.Name {
		case name:
			return File{Unfit: true, Problem: p.Error()}
		case "":
			unnamed = p.Error()
		}
	}
	f := File{Missing: true, Lacks: desired.Described(name) + " does not exist"}
	switch {
	case want.Reason != "" && want.Reason != desired.ReasonInvalidManifests:
		f.Missing, f.Problem = false, f.Lacks+", as far as can be told: "+want.Message
	case unnamed != "":
		f.Lacks += "; it may be in a file with a problem: " + unnamed
		f.Problem = f.Lacks
	}
	return f
}

// Missing says what a manifest refers to and is not there, "" if all is. help says that
// somebody has to change something; a filesystem that does not answer, and a directory
// that is not whole, may be well in a moment.
func Missing(e *desired.Entry, files map[string]File) (why string, help bool) {
	return missing(e, files, func(*desired.FileRef) bool { return true })
}

// Gone warns that what a sandbox has been started with is not there any more: it keeps
// running, and could not be started again. It is nil if all is there.
func Gone(e *desired.Entry, rec *actual.Record, files map[string]File) *actual.Warning {
	if rec.Phase != actual.PhaseRunning {
		return nil
	}
	why, _ := Missing(e, files)
	if why == "" {
		return nil
	}
	return &actual.Warning{Reason: actual.WarningInputGone, Message: why + "; it keeps what it was started with, and can't be started again without"}
}

// MissingIn is Missing of some volumes.
func MissingIn(volumes []string, e *desired.Entry, files map[string]File) (why string, help bool) {
	return missing(e, files, func(r *desired.FileRef) bool { return slices.Contains(volumes, r.Volume) })
}

func missing(e *desired.Entry, files map[string]File, counts func(*desired.FileRef) bool) (why string, help bool) {
	if e == nil {
		return "", false
	}
	for _, ref := range e.Sandbox.Spec.FileRefs() {
		if !counts(&ref) {
			continue
		}
		f, known := files[ref.Path]
		switch {
		case !known:
		case f.Problem != "" && !strings.HasPrefix(ref.Path, "/"): // which names what it is about
			return ref.Field + ": " + f.Problem, f.Missing || f.Unfit
		case f.Problem != "":
			return ref.Field + ": " + ref.Path + " can't be used: " + f.Problem, f.Missing || f.Unfit
		case f.Missing && !ref.Optional && f.Lacks != "":
			return ref.Field + ": " + f.Lacks, f.Missing || f.Unfit
		case f.Missing && !ref.Optional:
			return ref.Field + ": " + ref.Path + " does not exist", f.Missing || f.Unfit
		}
	}
	return "", false
}

// Changed says whether a sandbox that is to be started again for a change was started with
// another content of a file or document than there is now. What is missing, or can't be
// looked at, has not changed: its absence is no evidence.
func Changed(e *desired.Entry, rec *actual.Record, files map[string]File) bool {
	changed := false
	changes(e, rec, files, func(ref *desired.FileRef) bool {
		changed = ref.OnChange == desired.OnChangeRestart
		return !changed
	})
	return changed
}

// Stale are the volumes of a sandbox that runs whose files are to be replaced: those with
// another content by now, and those of which that was begun and not finished.
func Stale(e *desired.Entry, rec *actual.Record, files map[string]File) (volumes []string) {
	if rec.Refresh != nil {
		volumes = slices.Clone(rec.Refresh.Pending)
	}
	changes(e, rec, files, func(ref *desired.FileRef) bool {
		if ref.OnChange == desired.OnChangeSignal && !slices.Contains(volumes, ref.Volume) {
			volumes = append(volumes, ref.Volume)
		}
		return true
	})
	return volumes
}

// changes calls found for what has another content, until that returns false.
func changes(e *desired.Entry, rec *actual.Record, files map[string]File, found func(*desired.FileRef) bool) {
	at := 0
	for _, ref := range e.Sandbox.Spec.FileRefs() {
		f, known := files[ref.Path]
		i := rec.InputAt(at, ref.Path)
		at = i + 1
		if i < 0 || !known || f.Missing || f.Problem != "" || rec.Inputs[i].ID == f.ID {
			continue
		}
		// It came, or it is another one.
		_, _, is := objects.Referred(ref.Path)
		if (!is || rec.Inputs[i].ID == "" || objects.Comparable(rec.Inputs[i].ID, f.ID)) && !found(&ref) {
			return
		}
	}
}

// refreshEvery is how often a sandbox is told of new files at most. It is also how long an
// application has to get ready for the signal after its start.
const refreshEvery = time.Second

// RefreshDue is when a sandbox may be given new files, zero for at once.
func RefreshDue(rec *actual.Record, now time.Time) time.Time {
	last := rec.App().StartedAt
	if rec.Refresh != nil && rec.Refresh.At.After(last) {
		last = rec.Refresh.At
	}
	if last.After(now) { // the clock was set back
		return time.Time{}
	}
	return last.Add(refreshEvery)
}

// A sandbox is started at once for the first freeChanges of its files; then later and
// later, as after failures, up to mostChangeDelay.
const (
	freeChanges     = 5
	mostChangeDelay = 5 * time.Minute
)

// Due is when a sandbox may be started for a change of its files, zero for at once: they
// may be written all the time, also by the sandbox itself.
func Due(rec *actual.Record, now time.Time) time.Time {
	n := rec.InputChanges - freeChanges
	if n < 0 || rec.CreatedAt.After(now) { // the clock was set back
		return time.Time{}
	}
	return rec.CreatedAt.Add(min(time.Second<<min(n, 10), mostChangeDelay))
}
