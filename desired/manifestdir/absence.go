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

// absences say which manifests their author has removed. They have no clock and read
// nothing: settle takes in each look at the directory, with its time.
type absences struct {
	wait time.Duration // how long an absence must last to be believed
	once bool          // the first look is believed as it is

	first time.Time // of the first look that listed the directory
	// doubt: the directory was away, or another one, a moment ago. arrival is when
	// something came since, and filled how many files there were then.
	doubt   bool
	arrival time.Time
	filled  int
	seen    map[string]string  // keys that are there → the file that each was seen in last
	look    int                // the number of the last look that was taken in
	missing map[string]absence // keys that were there before
	broken  []string           // see Memory.Broken
	gone    []string           // see Memory.Gone
}

func newAbsences(wait time.Duration, once bool) *absences {
	return &absences{wait: wait, once: once, seen: map[string]string{}, missing: map[string]absence{}}
}

// look is what one look at the directory has found.
type look struct {
	number   int
	files    map[string]*fileEntry
	problems []desired.Problem
	// changed are the keys that may have come or gone since the last look that was taken
	// in; settle empties it. present tells which of them are there.
	changed map[string]bool
	present func(key string) (file string, there bool)
	// pending says that something else in it must last to be believed.
	pending bool
	// part says that it was a look at some files alone: no absence is believed by it.
	part bool
}

// delay is why a look is not believed yet, and until when.
type delay struct {
	why   string
	until time.Time
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

// refill is for how many times the wait nothing may come to a directory that was
// away before it is taken to be whole: a copy or a checkout fills it file by file.
const refill = 20

// away says that the directory can't be read, or is another one.
func (a *absences) away(now time.Time) { a.doubt, a.arrival, a.filled = true, now, 0 }

// settle takes in a look that listed the directory. An absence is believed only when
// it was seen twice, some time apart: editors and sync tools take a file away for a
// moment to put it back.
func (a *absences) settle(l *look, now time.Time) (delays []delay) {
	later := func(left time.Duration, why string) {
		if left > 0 {
			delays = append(delays, delay{why, now.Add(left)})
		}
	}
	if a.first.IsZero() {
		a.first = now
	}
	if !a.once {
		later(a.wait-now.Sub(a.first), "the manifests directory was read for the first time a moment ago")
		later(a.refilling(len(l.files), now), "the manifests directory came back a moment ago, and may not be complete yet")
	}
	a.take(l, now)
	var gone []string
	for n, m := range a.missing {
		_, there := a.seen[n]
		switch left := a.wait - now.Sub(m.since); {
		case there || l.holds(n):
			delete(a.missing, n)
		case left > 0 || l.part:
			// What is gone may have come where nothing notifies of, as long as nobody
			// has looked at everything.
			later(max(left, time.Nanosecond), fmt.Sprintf("the manifest of %s disappeared a moment ago", strings.TrimPrefix(n, "/")))
		default:
			gone = append(gone, n)
		}
	}
	if len(l.problems) > 0 && (l.pending || len(delays) > 0) {
		return delays // until it can be told whether a problem may be about what is gone
	}
	for _, n := range gone {
		if len(l.problems) > 0 && !strings.HasPrefix(n, "/") && !l.mayDefine(n, a.missing[n].last) {
			if len(a.gone) >= maxGone {
				a.gone = nil // those were removed long ago
			}
			a.gone = append(slices.Clip(a.gone), n)
		}
		delete(a.missing, n)
	}
	return delays
}

// refilling is how long a directory that was away is still waited for.
func (a *absences) refilling(files int, now time.Time) time.Duration {
	if !a.doubt {
		return 0
	}
	if files != a.filled {
		a.arrival, a.filled = now, files
	}
	left := refill*a.wait - now.Sub(a.arrival)
	a.doubt = left > 0
	return left
}

// due says whether an absence has lasted, so that the next look decides on it.
func (a *absences) due(now time.Time) bool {
	for _, m := range a.missing {
		if now.Sub(m.since) >= a.wait {
			return true
		}
	}
	return false
}

// take notes what has come, and since when that is missing which was there before.
func (a *absences) take(l *look, now time.Time) {
	for n := range l.changed {
		if file, there := l.present(n); there {
			a.seen[n] = file
			delete(a.missing, n)
			continue
		}
		file, was := a.seen[n]
		if !was || l.holds(n) {
			continue // of a file that is there: mended, perhaps
		}
		delete(a.seen, n)
		if _, waiting := a.missing[n]; !waiting {
			a.missing[n] = absence{since: now, last: sighting{file, a.look}}
		}
	}
	clear(l.changed)
	a.look = l.number
}

// holds says whether n, as kept in seen, is a file that is there.
func (l *look) holds(n string) bool {
	path, ok := strings.CutPrefix(n, "/")
	return ok && l.files[path] != nil
}

// mayDefine says whether something that has a problem may be about a name that is
// not there any more: it names it, it defined it, it came or changed since the name
// was seen last, so that the manifest may have been moved there, or nobody can tell
// what it is.
func (l *look) mayDefine(name string, last sighting) bool {
	for i := range l.problems {
		p := &l.problems[i]
		if p.Opaque || p.Name == name || p.File == last.file {
			return true
		}
		if f := l.files[p.File]; f != nil && (f.look > last.look || f.names[name]) {
			return true
		}
	}
	return false
}

// What is remembered of files with problems is bounded: beyond it, nothing counts
// as removed as long as there are so many.
const (
	maxBroken = 1000
	maxGone   = 4000
)

// believe returns which absences are believed although files have problems, for as
// long as these files are what they are. Without problems it forgets them, unless
// the look is unsettled.
func (a *absences) believe(l *look, unsettled bool) []string {
	if len(l.problems) == 0 {
		if !unsettled {
			a.broken, a.gone = nil, nil
		}
		return nil
	}
	broken := map[string]bool{}
	opaque := false
	for i := range l.problems {
		p := &l.problems[i]
		opaque = opaque || p.Opaque
		id := trustedfile.ID{}
		if f := l.files[p.File]; f != nil {
			id = f.id
		}
		broken[fmt.Sprint(p.File, " ", id)] = true
	}
	was := a.broken
	a.broken = slices.Sorted(maps.Keys(broken))
	for _, f := range a.broken {
		if _, same := slices.BinarySearch(was, f); !same || opaque {
			// What it says now may be about any of them.
			a.gone = nil
		}
	}
	if len(a.broken) > maxBroken {
		a.broken, a.gone = nil, nil
	}
	gone := slices.DeleteFunc(slices.Clone(a.gone), func(n string) bool {
		_, there := a.seen[n]
		return there
	})
	slices.Sort(gone)
	a.gone = slices.Compact(gone)
	if l.pending {
		return nil
	}
	return a.gone
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
