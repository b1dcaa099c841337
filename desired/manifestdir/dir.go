// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/trustedfile"
)

// Options configure a Dir. The zero value of a duration is its default.
type Options struct {
	// Path of the manifests directory; it may be a symbolic link.
	Path string
	// Memory from an earlier run, nil if there was none.
	Memory *Memory
	// Expected says that manifests have been there: without Memory, a directory
	// that holds none is not the one they were in.
	Expected bool
	// AllowEmpty takes a replaced and empty directory at its word.
	AllowEmpty bool
	// Settle is how long an absence must last to be believed (default 100 ms).
	Settle time.Duration
	// PollEvery is how often it is looked whether the directory is still the
	// same one; where there are no notifications, what is in it (default 10 s).
	PollEvery time.Duration
	// Resync is how often the reader calls Load without a reason. Such a call looks at
	// everything, whatever notifications have told (default: as PollEvery).
	Resync time.Duration
	// Once makes the first look be believed as it is, for a program that looks
	// only once. Otherwise an absence at the first look must last as well.
	Once bool
	// BootID of the host, for Memory: mount ids mean nothing in another boot.
	BootID string
	// Known returns the entry that the same build of this program made of a
	// document with the digest given, if that is on record. It spares a
	// program that looks only once the parsing of what did not change. It is
	// called from several goroutines.
	Known func(digest string) *desired.Entry
	// Policy returns what manifests may ask for (see hostpolicy.File). It is
	// called at every Load; while it fails no manifest counts. Without it
	// everything is allowed.
	Policy func() (desired.Policy, error)
}

// Dir is a directory of manifests. Load may be called at any time; Run tells
// when it is worth it.
type Dir struct {
	opts    Options
	changes chan struct{}
	dirty   chan struct{}
	// newWatcher is fsnotify's; tests make it fail.
	newWatcher func() (*fsnotify.Watcher, error)

	notices notices

	mu      sync.Mutex
	index   *index
	memory  Memory
	last    *desired.Snapshot
	absent  *absences
	top     Identity // at the last look
	looks   int      // at the directory, since the start
	pending bool     // something that the last Load saw must last to be believed
	whole   whole    // the last look at everything
	glanced bool     // since then there were looks at a part
	told    telling  // what last tells
	// examined counts looks at single files, for a test of what a change costs.
	examined atomic.Int64
	// dirMissing are the remembered directories that are not there, since when.
	dirMissing map[string]time.Time
	rules      IgnoreRules       // of the last look
	ignores    map[string]string // the texts of ignore files
	// links says that there are links: then a file of any name may be a manifest.
	links    atomic.Bool
	recheck  time.Time // when Load must be called again at the latest
	degraded string
	// unwatched are the directories that the last look at everything found without a
	// watch; rearm has Run make the watches again.
	unwatched []string
	rearm     atomic.Bool
}

// New returns a source of the directory. Nothing is read yet.
func New(opts Options) *Dir {
	opts.Settle = cmp.Or(opts.Settle, 100*time.Millisecond)
	opts.PollEvery = cmp.Or(opts.PollEvery, 10*time.Second)
	opts.Resync = cmp.Or(opts.Resync, opts.PollEvery)
	d := &Dir{
		opts:    opts,
		changes: make(chan struct{}, 1),
		dirty:   make(chan struct{}, 1),
		index:   newIndex(),
		absent:  newAbsences(opts.Settle, opts.Once),

		dirMissing: map[string]time.Time{},
		ignores:    map[string]string{},

		newWatcher: fsnotify.NewWatcher,
	}
	if opts.Memory != nil {
		d.memory = *opts.Memory
		d.absent.broken, d.absent.gone = d.memory.Broken, d.memory.Gone
	}
	return d
}

// Changes receives when a Load may give something new.
func (d *Dir) Changes() <-chan struct{} { return d.changes }

// Memory is what to keep for the next run. It changes only in Load.
func (d *Dir) Memory() Memory {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.memory
}

// Expect sets Options.Expected, for who learns it later.
func (d *Dir) Expect(manifests bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opts.Expected = manifests
}

// Degraded says why changes are noticed late, or "".
func (d *Dir) Degraded() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.degraded
}

// Load reads the directory. Files that did not change since the last call are
// not read again, and if nothing changed the same Snapshot is returned. It
// never fails: what is wrong is in the Snapshot.
//
// While notifications are to be relied on it looks only at the files that they name.
func (d *Dir) Load(ctx context.Context) (*desired.Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	d.recheck, d.pending = time.Time{}, false
	d.looks++
	snap := &desired.Snapshot{Complete: true}
	var id Identity
	policy, policyDigest, err := d.policy()
	if err == nil {
		snap.Policy = policy
		id, err = d.look(ctx, snap, policyDigest)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	d.top = id
	var unusable *policyError
	var untrusted *trustedfile.UntrustedError
	switch {
	case errors.As(err, &unusable):
		d.incomplete(snap, desired.ReasonPolicyUnusable, "%v; nothing is created, changed or stopped until that is fixed", unusable.err)
		d.lookAgain(time.Now().Add(policyRecheck))
	case errors.As(err, &untrusted):
		d.incomplete(snap, desired.ReasonDirectoryUntrusted, "the manifests directory is not trusted: %v; until that is fixed, nothing is created or stopped", untrusted)
	case errors.Is(err, fs.ErrNotExist):
		d.incomplete(snap, desired.ReasonDirectoryMissing, "the manifests directory %s does not exist; mount it, or make it (mkdir -p); nothing is stopped because of it", d.opts.Path)
	case err != nil:
		d.incomplete(snap, desired.ReasonDirectoryUnreadable, "the manifests directory can't be read: %v; nothing is stopped because of it", err)
	default:
		d.identify(snap, id)
	}
	d.judge(snap, err != nil)
	d.whole.calm = err == nil && d.calm(snap)
	told := telling{
		complete: snap.Complete, reason: snap.Reason, message: snap.Message, gone: strings.Join(snap.Gone, " "),
		policy: policyDigest, away: err != nil, revision: d.index.revision,
	}
	if d.last != nil && d.told == told {
		return d.last, nil
	}
	d.last, d.told = snap, told
	return snap, nil
}

// telling is all that a snapshot depends on: the same makes the same snapshot.
type telling struct {
	complete        bool
	reason, message string
	gone, policy    string
	away            bool
	revision        uint64
}

// judge finds out what is in the directory and which absences are believed. away says
// that it could not be read.
func (d *Dir) judge(s *desired.Snapshot, away bool) {
	now := time.Now()
	replaced := s.Reason == desired.ReasonDirectoryReplaced
	if away || replaced {
		d.absent.away(now)
	}
	if !away {
		// Otherwise what the files said is not what the directory says now;
		// the records have what is needed to go on.
		d.resolve(s)
	}
	l := &look{number: d.looks, files: d.index.files, problems: s.Problems, pending: d.pending, changed: d.index.changed, present: d.index.present, part: d.glanced}
	if !away && !replaced {
		for _, w := range d.absent.settle(l, now) {
			d.incomplete(s, desired.ReasonUnsettled, "%s", w.why)
			d.lookAgain(w.until)
		}
		l.pending = d.pending
	}
	s.Gone = d.absent.believe(l, s.Reason == desired.ReasonUnsettled)
	d.memory.Broken, d.memory.Gone = d.absent.broken, d.absent.gone
}

// policyRecheck is how soon a policy that can't be used is looked at again.
const policyRecheck = time.Second

// policyError is an error of the policy, and not of the directory.
type policyError struct{ err error }

func (e *policyError) Error() string { return e.err.Error() }

// policy returns what manifests are judged by now, nil if by nothing.
func (d *Dir) policy() (desired.Policy, string, error) {
	if d.opts.Policy == nil {
		return nil, "", nil
	}
	p, err := d.opts.Policy()
	if err != nil {
		return nil, "", &policyError{err}
	}
	return p, p.Digest(), nil
}

func (d *Dir) incomplete(s *desired.Snapshot, reason, format string, args ...any) {
	d.pending = d.pending || reason != desired.ReasonInvalidManifests
	if s.Complete {
		s.Complete, s.Reason, s.Message = false, reason, fmt.Sprintf(format, args...)
	}
}

// resolve makes the entries of the snapshot out of the files.
func (d *Dir) resolve(s *desired.Snapshot) {
	s.Entries, s.Objects = d.index.resolve()
	s.Sizes = d.index.sizes
	s.Problems = d.index.problems()
	for _, f := range d.index.oddFiles() {
		if f.foreign != nil {
			s.Warnings = append(s.Warnings, *f.foreign)
		}
		if f.exposed != nil {
			s.Warnings = append(s.Warnings, *f.exposed)
		}
		if f.unsettled {
			d.incomplete(s, desired.ReasonUnsettled, "%s is being written", f.path)
		}
	}
	if n := len(s.Problems); n > 0 {
		first, hint := s.Problems[0], ""
		if slices.ContainsFunc(s.Problems, func(p desired.Problem) bool { return p.Name == "" && p.File != "" }) {
			hint = "; " + desired.IgnoreFile + " is for files that are no manifests"
		}
		d.incomplete(s, desired.ReasonInvalidManifests, "%s in the manifests, the first: %s; a sandbox whose manifest is missing keeps running if one of these files may define it%s", count(n, "problem"), first.Error(), hint)
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// lookAgain makes Run wake the reader at the time given, or earlier.
func (d *Dir) lookAgain(at time.Time) {
	if d.recheck.IsZero() || at.Before(d.recheck) {
		d.recheck = at
	}
	d.markDirty()
}
