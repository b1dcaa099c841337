// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// Reasons why a Snapshot is not complete.
const (
	ReasonDirectoryMissing    = "DirectoryMissing"
	ReasonDirectoryUnreadable = "DirectoryUnreadable"
	ReasonDirectoryReplaced   = "DirectoryReplaced" // by one that holds no manifest
	ReasonInvalidManifests    = "InvalidManifests"
	ReasonUnsettled           = "Unsettled" // something is changing right now
	// Others could change what the directory says.
	ReasonDirectoryUntrusted = "DirectoryUntrusted"
	// What manifests may ask for can't be told.
	ReasonPolicyUnusable = "PolicyUnusable"
)

// ReasonPolicyDenied is the reason of a Problem, and of a sandbox, that the host
// policy does not allow.
const ReasonPolicyDenied = "PolicyDenied"

// Memory is what a Dir must remember across restarts of the daemon to tell a
// directory that was emptied from one that was swapped or unmounted.
type Memory struct {
	// The directory that last held a manifest.
	Dev   uint64 `json:"dev,omitempty"`
	Ino   uint64 `json:"ino,omitempty"`
	Mount uint64 `json:"mount,omitempty"`
	// Birth is when it was made, in ns, 0 if its filesystem does not say: the inode
	// number of a directory that was removed is given to the next one.
	Birth  int64  `json:"birth,omitempty"`
	BootID string `json:"bootID,omitempty"`
	// Emptied says that it was then seen empty, itself: that is its author's
	// wish, and stays so.
	Emptied bool `json:"emptied,omitempty"`
}

// DirOptions configure a Dir. The zero value of a duration is its default.
type DirOptions struct {
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
	// Once makes the first look be believed as it is, for a program that looks
	// only once. Otherwise an absence at the first look must last as well.
	Once bool
	// BootID of the host, for Memory: mount ids mean nothing in another boot.
	BootID string
	// Known returns the entry that the same build of this program made of a
	// document with the digest given, if that is on record. It spares a
	// program that looks only once the parsing of what did not change. It is
	// called from several goroutines.
	Known func(digest string) *Entry
	// Policy returns what manifests may ask for (see PolicyFile.Load). It is
	// called at every Load; while it fails no manifest counts. Without it
	// everything is allowed.
	Policy func() (*HostPolicy, error)
}

// Dir is a directory of manifests. Load may be called at any time; Run tells
// when it is worth it.
type Dir struct {
	opts    DirOptions
	changes chan struct{}
	dirty   chan struct{}
	// newWatcher is fsnotify's; tests make it fail.
	newWatcher func() (*fsnotify.Watcher, error)

	mu     sync.Mutex
	files  map[string]*fileEntry // by path relative to the directory
	memory Memory
	last   *Snapshot
	first  time.Time // of the first look that listed the directory
	// doubt: the directory was away, or another one, a moment ago; arrival is when
	// something came since, and filled how many files there were then.
	doubt    bool
	arrival  time.Time
	filled   int
	seen     map[string]bool      // names of the last Load that are still wanted, and /files that may be of any
	missing  map[string]time.Time // names that were there before, since when not
	recheck  time.Time            // when Load must be called again at the latest
	degraded string
}

// NewDir returns a source of the directory. Nothing is read yet.
func NewDir(opts DirOptions) *Dir {
	opts.Settle = cmp.Or(opts.Settle, 100*time.Millisecond)
	opts.PollEvery = cmp.Or(opts.PollEvery, 10*time.Second)
	d := &Dir{
		opts:    opts,
		changes: make(chan struct{}, 1),
		dirty:   make(chan struct{}, 1),
		files:   map[string]*fileEntry{},
		seen:    map[string]bool{},
		missing: map[string]time.Time{},

		newWatcher: fsnotify.NewWatcher,
	}
	if opts.Memory != nil {
		d.memory = *opts.Memory
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

// Expect sets DirOptions.Expected, for who learns it later.
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
func (d *Dir) Load(ctx context.Context) (*Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	d.recheck = time.Time{}
	snap := &Snapshot{Complete: true}
	var id dirID
	policy, policyDigest, err := d.policy()
	if err == nil {
		snap.Policy = policy
		id, err = d.scan(ctx, snap, policyDigest)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var unusable *policyError
	var untrusted *UntrustedError
	switch {
	case errors.As(err, &unusable):
		d.incomplete(snap, ReasonPolicyUnusable, "%v; nothing is created, changed or stopped until it is mended", unusable.err)
		d.lookAgain(time.Now().Add(policyRecheck))
	case errors.As(err, &untrusted):
		d.incomplete(snap, ReasonDirectoryUntrusted, "the manifests directory can't be relied on: %v; nothing new is created and nothing stopped until then", untrusted)
	case errors.Is(err, fs.ErrNotExist):
		d.incomplete(snap, ReasonDirectoryMissing, "the manifests directory %s does not exist; nothing is stopped because of it", d.opts.Path)
	case err != nil:
		d.incomplete(snap, ReasonDirectoryUnreadable, "the manifests directory can't be read: %v; nothing is stopped because of it", err)
	default:
		d.identify(snap, id)
	}
	if err != nil || snap.Reason == ReasonDirectoryReplaced {
		d.doubt, d.arrival, d.filled = true, time.Now(), 0
	}
	if err == nil {
		// Otherwise what the files said is not what the directory says now;
		// the records have what is needed to go on.
		d.resolve(snap)
	}
	if snap.Reason != ReasonDirectoryReplaced && err == nil {
		d.settle(snap)
	}
	snap.Digest = digest(snap, policyDigest)
	if d.last != nil && d.last.Digest == snap.Digest {
		return d.last, nil
	}
	d.last = snap
	return snap, nil
}

// policyRecheck is how soon a policy that can't be used is looked at again.
const policyRecheck = time.Second

// policyError is an error of the policy, and not of the directory.
type policyError struct{ err error }

func (e *policyError) Error() string { return e.err.Error() }

// policy returns what manifests are judged by now, nil if by nothing.
func (d *Dir) policy() (*HostPolicy, string, error) {
	if d.opts.Policy == nil {
		return nil, "", nil
	}
	p, err := d.opts.Policy()
	if err != nil {
		return nil, "", &policyError{err}
	}
	return p, p.Digest(), nil
}

func (d *Dir) incomplete(s *Snapshot, reason, format string, args ...any) {
	if s.Complete {
		s.Complete, s.Reason, s.Message = false, reason, fmt.Sprintf(format, args...)
	}
}

// dirID tells directories apart, also where one is mounted over another.
type dirID struct {
	dev, ino, mount uint64
	birth           int64
}

func statDir(fd int) (dirID, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_MNT_ID|unix.STATX_BTIME, &st); err != nil {
		return dirID{}, fmt.Errorf("stat directory: %w", err)
	}
	id := dirID{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino, mount: st.Mnt_id}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.birth = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return id, nil
}

// identify compares the directory with the one that is remembered.
func (d *Dir) identify(s *Snapshot, id dirID) {
	m := &d.memory
	same := m.Dev == id.dev && m.Ino == id.ino && (m.Birth == id.birth || m.Birth == 0 || id.birth == 0) && (m.BootID != d.opts.BootID || m.Mount == id.mount)
	switch {
	case len(d.files) > 0:
		// It holds manifests: whatever it was before, it is the one now. That
		// a swap took too much away is the deletion guard's to judge.
		*m = Memory{Dev: id.dev, Ino: id.ino, Mount: id.mount, Birth: id.birth, BootID: d.opts.BootID}
	case m.Ino == 0 && !d.opts.Expected, same && m.Emptied:
		// Never held anything, or was emptied before by its author.
	case same || d.opts.AllowEmpty:
		*m = Memory{Dev: id.dev, Ino: id.ino, Mount: id.mount, Birth: id.birth, BootID: d.opts.BootID, Emptied: true}
	default:
		d.incomplete(s, ReasonDirectoryReplaced,
			"the manifests directory %s was replaced by another one that holds no manifest (unmounted, or swapped?); nothing is stopped until it holds one, or the daemon is started with --allow-empty", d.opts.Path)
	}
}

// resolve makes the entries of the snapshot out of the files.
func (d *Dir) resolve(s *Snapshot) {
	byName := map[string]*Entry{}
	twice := map[string]Position{}
	for _, f := range d.sorted() {
		s.Problems = append(s.Problems, f.problems...)
		if f.unsettled {
			d.incomplete(s, ReasonUnsettled, "%s is being written", f.path)
		}
		for i := range f.entries {
			e := &f.entries[i]
			name := e.Sandbox.Metadata.Name
			if other, ok := byName[name]; ok {
				if _, reported := twice[name]; !reported {
					twice[name] = other.Source
					s.Problems = append(s.Problems, duplicateProblem(other.Source, name, e.Source))
				}
				s.Problems = append(s.Problems, duplicateProblem(e.Source, name, other.Source))
				continue
			}
			byName[name] = e
		}
	}
	for name, e := range byName {
		// Neither of two definitions counts: which one is meant is not ours
		// to guess, and the sandbox keeps what it has.
		if _, bad := twice[name]; !bad {
			s.Entries = append(s.Entries, *e)
		}
	}
	slices.SortFunc(s.Entries, func(a, b Entry) int { return cmp.Compare(a.Sandbox.Metadata.Name, b.Sandbox.Metadata.Name) })
	sortProblems(s.Problems)
	if n := len(s.Problems); n > 0 {
		first := s.Problems[0]
		d.incomplete(s, ReasonInvalidManifests, "%s in the manifests, the first: %s; nothing is stopped because its manifest is missing until all are mended", count(n, "problem"), first.Error())
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// refill is for how many times Settle nothing may come to a directory that was
// away before it is taken to be whole: a copy or a checkout fills it file by file.
const refill = 20

// refilled waits until a directory that was away is filled.
func (d *Dir) refilled(s *Snapshot, now time.Time) {
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
	d.incomplete(s, ReasonUnsettled, "the manifests directory came back a moment ago, and may not be whole yet")
	d.lookAgain(now.Add(left))
}

// settle believes an absence only when it was seen twice, Settle apart:
// editors and sync tools take a file away for a moment to put it back.
func (d *Dir) settle(s *Snapshot) {
	now := time.Now()
	if d.first.IsZero() {
		d.first = now
	}
	if left := d.opts.Settle - now.Sub(d.first); left > 0 && !d.opts.Once {
		d.incomplete(s, ReasonUnsettled, "the manifests directory was looked at for the first time a moment ago")
		d.lookAgain(now.Add(left))
	}
	present := make(map[string]bool, len(s.Entries))
	for i := range s.Entries {
		n := s.Entries[i].Sandbox.Metadata.Name
		present[n] = true
		delete(d.missing, n)
	}
	d.refilled(s, now)
	for _, p := range s.Problems {
		if p.Name != "" {
			present[p.Name] = true
		} else if p.File != "" {
			// It may be anybody's. No name has a slash.
			present["/"+p.File] = true
		}
	}
	for n := range d.seen {
		if d.holds(n) {
			present[n] = true // mended, perhaps
		}
		if _, waiting := d.missing[n]; !present[n] && !waiting {
			d.missing[n] = now
		}
	}
	d.seen = present
	for n, since := range d.missing {
		switch left := d.opts.Settle - now.Sub(since); {
		case present[n] || d.holds(n):
			delete(d.missing, n)
		case left > 0:
			d.incomplete(s, ReasonUnsettled, "the manifest of %s disappeared a moment ago", strings.TrimPrefix(n, "/"))
			d.lookAgain(now.Add(left))
		default:
			delete(d.missing, n)
		}
	}
}

// holds says whether n, as kept in seen, is a file that is there.
func (d *Dir) holds(n string) bool {
	path, ok := strings.CutPrefix(n, "/")
	return ok && d.files[path] != nil
}

// lookAgain makes Run wake the reader at the time given, or earlier.
func (d *Dir) lookAgain(at time.Time) {
	if d.recheck.IsZero() || at.Before(d.recheck) {
		d.recheck = at
	}
	d.markDirty()
}

func (d *Dir) sorted() []*fileEntry {
	out := make([]*fileEntry, 0, len(d.files))
	for _, f := range d.files {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b *fileEntry) int { return cmp.Compare(a.path, b.path) })
	return out
}

// digest changes whenever a snapshot does.
func digest(s *Snapshot, policy string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00", policy)
	fmt.Fprintf(h, "%t\x00%s\x00%s\x00", s.Complete, s.Reason, s.Message)
	for i := range s.Entries {
		e := &s.Entries[i]
		fmt.Fprintf(h, "%s\x00%s\x00%p\x00", e.Hash, e.Source, e.Sandbox)
	}
	for _, p := range s.Problems {
		fmt.Fprintf(h, "%s\x00%s\x00", p.Name, p.Error())
	}
	return hex.EncodeToString(h.Sum(nil))
}

// FileFor returns the manifest file that defines a name, and whether one does;
// otherwise where a new manifest of that name belongs.
func FileFor(s *Snapshot, name string) (file string, defined bool) {
	if e := s.Lookup(name); e != nil {
		return e.Source.File, true
	}
	for _, p := range s.Problems {
		if p.Name == name && p.File != "" {
			return p.File, true
		}
	}
	return name + ".yaml", false
}
