// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/desired/yamldoc"
	"sandboxctl.dev/launcher/volume"
	"sandboxctl.dev/reconcile/declared"
)

// Volumes makes named volumes in a state directory as they are declared.
type Volumes struct {
	State *os.File
	// Manifests is the directory in which the document of a volume must still be when the
	// volume is made, "" for who has just written it.
	Manifests string
}

// Declare implements reconcile.Volumes. What was decided may be over by now: a volume whose
// document was deleted meanwhile, and which was removed with it, is not made again. Who
// deletes takes the document away first, then waits until nobody makes a volume
// (VolumesSettled), and removes the volume last.
func (v Volumes) Declare(ctx context.Context, a *declared.Action) error {
	s, err := volume.Open(v.State)
	if err != nil {
		return err
	}
	defer s.Close()
	if a.Make && v.Manifests != "" {
		lock, err := lockVolumes(ctx, v.State, unix.LOCK_SH)
		if err != nil {
			return err
		}
		defer lock.Close()
		if err := stillDeclared(v.Manifests, a); err != nil {
			return fmt.Errorf("make volume %s: %w", a.Name, err)
		}
	}
	_, err = s.Declare(ctx, a.Name, volume.Want{Size: a.Size, Fresh: a.Fresh})
	return err
}

// stillDeclared returns an error unless the file that a volume was declared in still has a
// document of that name.
func stillDeclared(manifests string, a *declared.Action) error {
	top, err := trustedfile.Open(manifests)
	if err != nil {
		return err
	}
	defer top.Close()
	f, err := trustedfile.OpenBelow(top, a.File)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, yamldoc.MaxFileBytes))
	if err != nil {
		return err
	}
	docs, _ := desired.Decode(a.File, b)
	if !slices.ContainsFunc(docs, func(d desired.Document) bool { return d.Name == objects.Name(objects.Volume, a.Name) }) {
		return fmt.Errorf("%s has no document of it any more", a.File)
	}
	return nil
}

// VolumesSettled waits until nobody makes a volume of a state directory whose document was
// there when that began.
func (h *Host) VolumesSettled(ctx context.Context) error {
	state, err := actual.OpenStoreReadOnly(h.State)
	if errors.Is(err, actual.ErrNoState) {
		return nil
	}
	if err != nil {
		return err
	}
	defer state.Close()
	lock, err := lockVolumes(ctx, state.RootDir(), unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return lock.Close()
}

// settleTime is how long that is waited for, and settleEvery how often it is looked at.
const (
	settleTime  = 10 * time.Second
	settleEvery = 5 * time.Millisecond
)

// lockVolumes locks the directory of the volumes, until what it returns is closed.
func lockVolumes(ctx context.Context, state *os.File, how int) (*os.File, error) {
	dir, err := dirfd.Open(int(state.Fd()), volume.Directory, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil, fmt.Errorf("lock the volumes: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, errors.New("another program makes or removes volumes"))
	defer cancel()
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		err := unix.Flock(int(dir.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock the volumes: %w", err), dir.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock the volumes: %w", context.Cause(ctx)), dir.Close())
		case <-tick.C:
		}
	}
}
