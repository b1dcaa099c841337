// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/trustedfile"
)

// refill is for how many times Settle nothing may come to a directory that was
// away before it is taken to be whole: a copy or a checkout fills it file by file.
const refill = 20

// refilled waits until a directory that was away is filled.
func (d *Dir) refilled(s *desired.Snapshot, now time.Time) {
	if !d.doubt || d.opts.Once {
		return
	}
	if n := len(d.files); n != d.filled {
		d.arrival, d.filled = now, n
	}
	left := refill*d.opts.Settle - now.Sub(d.arrival)
	if left <= 0 {
		d.doubt = false
		return
	}
	d.incomplete(s, desired.ReasonUnsettled, "the manifests directory came back a moment ago, and may not be whole yet")
	d.lookAgain(now.Add(left))
}

// sighting is where and when a name was last seen.
type sighting struct {
	file string
	look int
}

// absence is since when a name is not there, and where it was.
type absence struct {
	since time.Time
	last  sighting
}

// settle believes an absence only when it was seen twice, Settle apart:
// editors and sync tools take a file away for a moment to put it back.
func (d *Dir) settle(s *desired.Snapshot) {
	now := time.Now()
	if d.first.IsZero() {
		d.first = now
	}
	if left := d.opts.Settle - now.Sub(d.first); left > 0 && !d.opts.Once {
		d.incomplete(s, desired.ReasonUnsettled, "the manifests directory was looked at for the first time a moment ago")
		d.lookAgain(now.Add(left))
	}
	present := make(map[string]sighting, len(s.Entries))
	for i := range s.Entries {
		e := &s.Entries[i]
		present[e.Sandbox.Metadata.Name] = sighting{e.Source.File, d.looks}
		delete(d.missing, e.Sandbox.Metadata.Name)
	}
	d.refilled(s, now)
	for _, p := range s.Problems {
		if p.Name != "" {
			present[p.Name] = sighting{p.File, d.looks}
		} else if p.File != "" {
			// It may be anybody's. No name has a slash.
			present["/"+p.File] = sighting{p.File, d.looks}
		}
	}
	for n, last := range d.seen {
		if d.holds(n) {
			present[n] = last // mended, perhaps
		}
		_, there := present[n]
		if _, waiting := d.missing[n]; !there && !waiting {
			d.missing[n] = absence{since: now, last: last}
		}
	}
	d.seen = present
	var gone []string
	for n, a := range d.missing {
		_, there := present[n]
		switch left := d.opts.Settle - now.Sub(a.since); {
		case there || d.holds(n):
			delete(d.missing, n)
		case left > 0:
			d.incomplete(s, desired.ReasonUnsettled, "the manifest of %s disappeared a moment ago", strings.TrimPrefix(n, "/"))
			d.lookAgain(now.Add(left))
		default:
			gone = append(gone, n)
		}
	}
	for _, n := range gone {
		if d.pending && len(s.Problems) > 0 {
			continue // until it can be told whether a problem may be about it
		}
		if name := n; !strings.HasPrefix(n, "/") && len(s.Problems) > 0 && !d.mayDefine(s, name, d.missing[n].last) {
			if len(d.memory.Gone) >= maxGone {
				d.memory.Gone = nil // those have been removed long since
			}
			d.memory.Gone = append(slices.Clip(d.memory.Gone), name)
		}
		delete(d.missing, n)
	}
}

// What is remembered of files with problems is bounded: beyond it, nothing counts
// as removed as long as there are so many.
const (
	maxBroken = 1000
	maxGone   = 4000
)

// holds says whether n, as kept in seen, is a file that is there.
func (d *Dir) holds(n string) bool {
	path, ok := strings.CutPrefix(n, "/")
	return ok && d.files[path] != nil
}

// mayDefine says whether something that has a problem may be about a name that is
// not there any more: it names it, it defined it, it came or changed since the name
// was seen last, so that the manifest may have been moved there, or nobody can tell
// what it is.
func (d *Dir) mayDefine(s *desired.Snapshot, name string, last sighting) bool {
	for i := range s.Problems {
		p := &s.Problems[i]
		if p.Opaque || p.Name == name || p.File == last.file {
			return true
		}
		if f := d.files[p.File]; f != nil && (f.look > last.look || f.names[name]) {
			return true
		}
	}
	return false
}

// believe keeps which absences are believed although files have problems, for as
// long as these files are what they are.
func (d *Dir) believe(s *desired.Snapshot) {
	if len(s.Problems) == 0 {
		if s.Reason != desired.ReasonUnsettled {
			d.memory.Broken, d.memory.Gone = nil, nil
		}
		return
	}
	broken := map[string]bool{}
	opaque := false
	for i := range s.Problems {
		p := &s.Problems[i]
		opaque = opaque || p.Opaque
		id := trustedfile.ID{}
		if f := d.files[p.File]; f != nil {
			id = f.id
		}
		broken[fmt.Sprint(p.File, " ", id)] = true
	}
	was := d.memory.Broken
	now := slices.Sorted(maps.Keys(broken))
	for _, f := range now {
		if _, same := slices.BinarySearch(was, f); !same || opaque {
			// What it says now may be about any of them.
			d.memory.Gone = nil
		}
	}
	d.memory.Broken = now
	if len(now) > maxBroken {
		d.memory.Broken, d.memory.Gone = nil, nil
	}
	gone := slices.DeleteFunc(slices.Clone(d.memory.Gone), func(n string) bool {
		_, there := d.seen[n]
		return there
	})
	slices.Sort(gone)
	d.memory.Gone = slices.Compact(gone)
	if !d.pending {
		s.Gone = d.memory.Gone
	}
}

// mentioned are the values of what is called name in a text, whether or not it can
// be parsed.
func mentioned(text []byte) map[string]bool {
	out := map[string]bool{}
	for {
		_, after, found := bytes.Cut(text, []byte("name"))
		if !found {
			return out
		}
		text = after
		value, isKey := bytes.CutPrefix(bytes.TrimLeft(after, "\"' \t"), []byte(":"))
		if !isKey {
			continue
		}
		value = bytes.TrimLeft(value[:min(len(value), 256)], "\"' \t\r\n")
		n := 0
		for n < len(value) && (value[n] >= 'a' && value[n] <= 'z' || value[n] >= '0' && value[n] <= '9' || value[n] == '-') {
			n++
		}
		if n > 0 && n <= 63 {
			out[string(value[:n])] = true
		}
	}
}
