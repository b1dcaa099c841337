// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/resumption"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/fromsnapshot"
	"sandboxctl.dev/launcher/checkpoint"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/setup"
)

// Chooser decides what starts begin from. It is safe for concurrent use.
type Chooser struct {
	Store *actual.Store
	// Version is that of the sentry that starts now.
	Version func(ctx context.Context) (string, error)

	mu       sync.Mutex
	verified map[fileID]*verification
	// compare is verify, but in tests.
	compare func(ctx context.Context, img *checkpoint.Image) error
}

// verification is what somebody finds, or has found, of a file.
type verification struct {
	done chan struct{}
	err  error // when done: nil, ErrDamaged, or why it was given up
}

// fileID is the content of a file, as far as the kernel tells: a write changes its times.
type fileID struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
	checksum     string
}

// mostVerified bounds what is remembered.
const mostVerified = 1000

// Saved is a state that a start begins from.
type Saved struct {
	*checkpoint.Image
	store *actual.Store
	hook  *fromsnapshot.OnRestore
}

// VersionOf is Chooser.Version for the program of a sentry.
func VersionOf(p *companion.Program) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		f, version, err := p.Open(ctx)
		if err != nil {
			return "", err
		}
		return version, f.Close()
	}
}

// Of is the state of a container, which has no manifest.
func Of(img *checkpoint.Image) *Saved { return &Saved{Image: img} }

// Timeout is how long it may take beyond a start.
func (s *Saved) Timeout() time.Duration {
	if s.hook == nil {
		return s.Image.Timeout()
	}
	return s.Image.Timeout() + time.Duration(*s.hook.Timeout)
}

// Phase is the phase of a start in which the application comes up, also of a fresh one.
func (s *Saved) Phase() string {
	if s == nil {
		return actual.StartRoot
	}
	return actual.StartRestore
}

// Begin opens what a start begins from, nil if it is a fresh one: the checkpoint that somebody has
// asked for, or the snapshot of its manifest. A checkpoint that does not fit is an error. A
// snapshot that does not is a warning of the record, and the start a fresh one: nothing was
// started yet. The set-up gets what is in the state and not in the manifest.
func (c *Chooser) Begin(ctx context.Context, rec *actual.Record, sb *desired.Sandbox, asked *actual.Request, st *setup.Setup) (*Saved, error) {
	before, want := rec.App().Resumption, sb.Spec.Snapshot
	rec.App().Resumption = nil
	saved := &Saved{store: c.Store}
	if want != nil {
		saved.hook = want.OnRestore
	}
	switch {
	case asked != nil && asked.Checkpoint != "":
		img, err := checkpoint.Open(asked.Checkpoint)
		if err != nil {
			return nil, err
		}
		if err := c.fits(ctx, img, st); err != nil {
			img.Close()
			return nil, err
		}
		saved.Image = img
	case want == nil:
		return nil, nil
	default:
		img, err := c.load(ctx, want.From, before, st)
		if cause := context.Cause(ctx); cause != nil && err != nil {
			return nil, cause
		}
		if err != nil {
			if before != nil && before.Failed != "" {
				rec.App().Resumption = before
			}
			rec.Warnings = append(rec.Warnings, actual.Warning{
				Reason: reasonOf(err), Message: fmt.Sprintf("spec.snapshot: it was started afresh, and not from the snapshot %s: %v", want.From, err),
			})
			return nil, nil
		}
		saved.Image = img
	}
	if saved.Info.OtherEnvironment(st) {
		// Without values: those in the state are another sandbox's.
		rec.Warnings = append(rec.Warnings, actual.Warning{
			Reason:  actual.WarningSnapshotEnvironment,
			Message: "spec.env: the application goes on with the environment in the state that it began from; that of the manifest is for what onRestore and exec run",
		})
	}
	saved.Info.KeepDiskSizes(st)
	// What is in it has an init process or not, whatever the manifest says now.
	st.App().Init, st.App().Restores = saved.Info.Init, true
	rec.App().Resumption = &resumption.Resumption{ID: saved.Info.ID, Unready: saved.hook != nil}
	return saved, nil
}

// errFailed says that a snapshot could not be restored the last time.
var errFailed = errors.New("the sentry could not restore it the last time")

// load opens a snapshot that fits.
func (c *Chooser) load(ctx context.Context, name string, before *resumption.Resumption, st *setup.Setup) (*checkpoint.Image, error) {
	s, err := Look(c.Store.RootDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer s.Close()
	img, err := s.Load(name)
	if err != nil {
		return nil, err
	}
	if before.Refuses(img.Info.ID) {
		err = fmt.Errorf("%w: %s; `sandboxctl restart` tries it again", errFailed, before.Failed)
	} else {
		err = c.fits(ctx, img, st)
	}
	if err != nil {
		img.Close()
		return nil, err
	}
	return img, nil
}

// fits says whether a state can be restored into the set-up, and is what was written. What is
// cheap to find out comes first.
func (c *Chooser) fits(ctx context.Context, img *checkpoint.Image, st *setup.Setup) error {
	version, err := c.Version(ctx)
	if err != nil {
		return err
	}
	if err := img.Preflight(st, version); err != nil {
		return err
	}
	if img.Info.Checksum == "" {
		return nil // a checkpoint has none
	}
	// A file that is large for its disk must leave a fresh start enough time.
	if end, ok := ctx.Deadline(); ok {
		half := time.Until(end) / 2
		limited, cancel := context.WithTimeoutCause(ctx, half, fmt.Errorf("its file was not read in %s, half of the time that was left of maxStartTime", half.Round(time.Millisecond)))
		defer cancel()
		ctx = limited
	}
	return c.verify(ctx, img)
}

// verify compares a state with its checksum, once as long as nobody writes to it: of one that
// many sandboxes begin from it is not read before each of them, nor by several at a time.
func (c *Chooser) verify(ctx context.Context, img *checkpoint.Image) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(img.State.Fd()), &st); err != nil {
		return fmt.Errorf("look at state: %w", err)
	}
	id := fileID{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim, img.Info.Checksum}
	defer operation.WaitsAfter(ctx, time.Second)() // a large one takes a while
	for {
		c.mu.Lock()
		v, known := c.verified[id]
		if !known {
			if c.verified == nil || len(c.verified) >= mostVerified {
				c.verified = map[fileID]*verification{}
			}
			v = &verification{done: make(chan struct{})}
			c.verified[id] = v
		}
		c.mu.Unlock()
		if !known {
			return c.find(ctx, img, id, v)
		}
		select {
		case <-v.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if v.err == nil || errors.Is(v.err, ErrDamaged) {
			return v.err
		}
		// The start that read it has ended, which says nothing about this one.
	}
}

// find reads all of a state for those who wait for v.
func (c *Chooser) find(ctx context.Context, img *checkpoint.Image, id fileID, v *verification) error {
	v.err = errors.New("the comparison has ended early") // by a panic
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if v.err != nil && !errors.Is(v.err, ErrDamaged) && c.verified[id] == v {
			delete(c.verified, id) // before others look for it again
		}
		close(v.done)
	}()
	compare := c.compare
	if compare == nil {
		compare = verify
	}
	v.err = compare(ctx, img)
	return v.err
}

// reasonOf is the reason of the warning that a start is a fresh one.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, ErrNotFound):
		return actual.WarningSnapshotMissing
	case errors.Is(err, ErrDamaged):
		return actual.WarningSnapshotDamaged
	case errors.Is(err, errFailed):
		return actual.WarningSnapshotFailed
	}
	return actual.WarningSnapshotUnfit
}
