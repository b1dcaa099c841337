// SPDX-License-Identifier: Apache-2.0

// Package declared decides what is to be done for the named volumes that manifests declare: to
// make those of Volume documents, and to set sizes. It removes none: that a document is not
// there says nothing about what is in a volume. It is pure, like the planner that asks it.
package declared

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
)

// Found is what there is of a volume.
type Found struct {
	// Exists says that it is there, and complete.
	Exists bool
	// Size is how much it may hold, 0 if nothing limits it.
	Size int64
}

// Action makes a volume, or changes the size of one.
type Action struct {
	Name string
	// Make says that it is not there yet.
	Make bool
	// Size is how much it is to hold, 0 if nobody says.
	Size int64
	// Fresh is whom it belongs to when it is made, nil for root.
	Fresh *desired.Ownership
	// File is that of its document, "" if it has none.
	File string
}

// Op is the word for it.
func (a *Action) Op() string {
	if a.Make {
		return "make"
	}
	return "resize"
}

// Retry is an action that failed. It keeps the same one from being tried again at once.
type Retry struct {
	Failures int       `json:"failures"`
	Due      time.Time `json:"due"`
	Size     int64     `json:"size,omitempty"`
	Message  string    `json:"message"`
}

// Delays between tries, and how long a message is at most.
const (
	firstDelay  = time.Second
	mostDelay   = time.Minute
	mostMessage = 500
)

// Failed notes one more failure.
func (r *Retry) Failed(a *Action, err error, now time.Time) {
	if r.Size != a.Size {
		*r = Retry{Size: a.Size}
	}
	r.Failures++
	message := err.Error()
	r.Message = strings.ToValidUTF8(message[:min(len(message), mostMessage)], "")
	r.Due = now.Add(min(firstDelay<<min(r.Failures-1, 6), mostDelay))
}

// Later is an action that failed, and is tried again.
type Later struct {
	Action
	Until time.Time
	Why   string
}

// Names are the volumes that have to be looked at, sorted; none costs nothing.
func Names(want *desired.Snapshot) []string {
	names := slices.Collect(maps.Keys(want.VolumeSizes()))
	for i := range want.Problems {
		if name := brokenVolume(&want.Problems[i]); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// brokenVolume is the volume whose document a problem is of, "" if it is of something else.
func brokenVolume(p *desired.Problem) string {
	if kind, name, ok := objects.Split(p.Name); ok && kind == objects.Volume {
		return name
	}
	return ""
}

// Waits says why a sandbox can't be started yet: a volume of its is not there, and what its
// document says of it can't be read. Made now, it would belong to somebody else for good. It
// is "" if there is no such volume.
func Waits(want *desired.Snapshot, found map[string]Found, e *desired.Entry) string {
	if e == nil {
		return ""
	}
	for i, v := range e.Sandbox.Spec.Volumes {
		if v.Volume == nil || want.Objects.Volume(v.Volume.Name) != nil {
			continue
		}
		if f, known := found[v.Volume.Name]; !known || f.Exists {
			continue
		}
		for j := range want.Problems {
			if p := &want.Problems[j]; brokenVolume(p) == v.Volume.Name {
				return fmt.Sprintf("spec.volumes[%d].volume: volume %s is not there yet, and its document has a problem: %s", i, v.Volume.Name, p.Error())
			}
		}
	}
	return ""
}

// Decide says what is to be done now, and what is tried again later, by name. wake is when
// that is due, zero if nothing is.
func Decide(want *desired.Snapshot, found map[string]Found, retries map[string]Retry, now time.Time) (do []Action, later []Later, wake time.Time) {
	if want.Reason == desired.ReasonPolicyUnusable || want.Reason == desired.ReasonDirectoryUntrusted {
		return nil, nil, wake // others than root may have written it
	}
	sizes := want.VolumeSizes()
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		f, known := found[name]
		if !known {
			continue
		}
		a := Action{Name: name, Make: !f.Exists, Size: int64(sizes[name])}
		spec := want.Objects.Volume(name)
		if a.Make && spec == nil || !a.Make && (a.Size == 0 || a.Size == f.Size) {
			continue // one that a sandbox names is made at the start
		}
		a.Fresh = spec.Fresh(nil)
		if spec != nil {
			a.File = want.Objects.Lookup(objects.Name(objects.Volume, name)).Source.File
		}
		r := retries[name]
		if wait := r.Due.Sub(now); r.Failures > 0 && r.Size == a.Size && wait > 0 && wait <= 2*mostDelay {
			later = append(later, Later{a, r.Due, r.Message})
			if wake.IsZero() || r.Due.Before(wake) {
				wake = r.Due
			}
			continue
		}
		do = append(do, a)
	}
	return do, later, wake
}
