// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/volume/freshdir"
)

// Opened are the volumes of a sandbox that is being started.
type Opened struct {
	volumes []*Volume
	dirs    []*os.File
}

// Close gives them back. By then the sandbox is on record, which keeps them from being
// removed.
func (o *Opened) Close() {
	for _, d := range o.dirs {
		d.Close()
	}
	for _, v := range o.volumes {
		v.Close()
	}
}

// OpenAll opens the named volumes of a set-up, and makes those that are not there.
func OpenAll(ctx context.Context, state *os.File, st *setup.Setup, sandbox string) (_ *Opened, err error) {
	out := &Opened{}
	defer func() {
		if err != nil {
			out.Close()
		}
	}()
	var store *Store
	for i := range st.App().Volumes {
		src := &st.App().Volumes[i]
		if src.Volume == "" {
			continue
		}
		if store == nil {
			if store, err = Open(state); err != nil {
				return nil, mendable(err)
			}
			defer store.Close()
		}
		if err := out.open(ctx, store, src, st.Maps, sandbox); err != nil {
			return nil, fmt.Errorf("%s: volume %s: %w", src.Field, src.Volume, mendable(err))
		}
	}
	return out, nil
}

// mendable marks an error that says that something is in the place of what leads to a
// volume: it is tried again when somebody has mended it.
func mendable(err error) error {
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) {
		return operation.Precondition(err)
	}
	return operation.PathPrecondition(err)
}

func (o *Opened) open(ctx context.Context, store *Store, src *setup.Source, ids *idmap.Maps, sandbox string) error {
	owner, err := ownerOf(src.Owner, ids)
	if err != nil {
		return operation.Permanentf("ownership: %w", err)
	}
	said := src.Owner
	if src.SubPath != "" {
		said = nil // the owner of a directory in it is not that of the volume
	}
	top, err := ownerOf(src.Declared.Fresh(said), ids)
	if err != nil {
		return operation.Permanentf("ownership: %w", err)
	}
	v, err := store.use(ctx, src.Volume, top, sandbox, src.Size)
	if err != nil {
		return err
	}
	o.volumes = append(o.volumes, v)
	data, err := v.Data(unix.O_RDONLY)
	if err == nil && src.SubPath != "" {
		data, err = openSubPath(data, src.SubPath, owner, true)
	}
	if err != nil {
		return err
	}
	o.dirs = append(o.dirs, data)
	src.Dir = data
	if src.Owner != nil && src.Owner.When == desired.OwnershipMismatch {
		return v.giveAll(ctx, data, owner)
	}
	return nil
}

// use locks a volume for the start of a sandbox, or without one as it is declared, after
// making it if it is not there. It has its size then.
func (s *Store) use(ctx context.Context, name string, fresh owner, sandbox string, size int64) (_ *Volume, err error) {
	if size != 0 {
		if err := s.quotas.canLimit(s.state); err != nil {
			return nil, operation.Precondition(err) // before anything is made
		}
	}
	for {
		v, err := s.lock(ctx, name, unix.LOCK_SH, lockPatience)
		if errors.Is(err, ErrNotFound) {
			if err := s.makeEntry(name); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if v == nil {
			continue
		}
		again, err := v.complete(ctx, fresh, sandbox)
		if err == nil && !again {
			if err = v.firstUse(ctx, fresh, sandbox); err == nil {
				err = v.setSize(ctx, v.sizeFor(sandbox, size))
			}
			if err == nil {
				return v, nil
			}
		}
		v.Close()
		if err != nil {
			return nil, err
		}
	}
}

// makeEntry makes the directory of a volume.
func (s *Store) makeEntry(name string) error {
	err := crashpoint.Do(crashpoint.VolumeMake, func() error { return unix.Mkdirat(int(s.dir.Fd()), name, 0o700) })
	if err == nil || errors.Is(err, unix.EEXIST) {
		err = s.dir.Sync()
	}
	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	return nil
}

// complete makes what a volume lacks. again says that it was removed meanwhile.
func (v *Volume) complete(ctx context.Context, fresh owner, sandbox string) (again bool, err error) {
	found, err := v.readMeta()
	if found || err != nil {
		return false, err
	}
	// The kernel gives one lock back before it takes the other: anything may have happened.
	if err := flock(ctx, v.dir, unix.LOCK_EX, lockPatience); err != nil {
		return false, err
	}
	there, err := v.isThere()
	if err != nil || !there {
		return true, err
	}
	found, err = v.readMeta()
	switch {
	case err != nil, found:
	case v.Restoring: // by a program that was killed: it had the lock
		return true, v.toTrash()
	default:
		err = v.make(ctx, fresh, sandbox)
	}
	if err != nil {
		return false, err
	}
	return false, flock(ctx, v.dir, unix.LOCK_SH, lockPatience)
}

// make makes a new volume of a directory that only this caller has.
func (v *Volume) make(ctx context.Context, fresh owner, sandbox string) error {
	if _, err := atomicfile.SweepTemps(v.dir); err != nil { // of one that was killed here
		return fmt.Errorf("make it: %w", err)
	}
	data, err := v.openOrMakeData()
	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	defer data.Close()
	empty, err := freshdir.Is(data)
	if err == nil && empty { // and not one that somebody has put there
		err = v.claimProject(ctx, data)
	}
	if err == nil && empty {
		err = fresh.giveFirst(data)
	}
	if err == nil {
		err = data.Sync()
	}
	if err == nil {
		err = v.writeMeta(Meta{CreatedFor: sandbox, Unused: sandbox == "", Project: v.Project})
	}
	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	return nil
}

func (v *Volume) openOrMakeData() (*os.File, error) {
	return openOrMake(v.dir, DataDir, func(fd int) error {
		return crashpoint.Do(crashpoint.VolumeData, func() error { return unix.Mkdirat(fd, DataDir, freshMode) })
	})
}

// giveFirst gives a volume that nothing has used to its first owner.
func (o owner) giveFirst(data *os.File) error {
	return crashpoint.Do(crashpoint.VolumeOwner, func() error { return o.give(data) })
}

// openOrMake opens a directory, after making it, by mkdir, if it is not there.
func openOrMake(at *os.File, name string, mkdir func(fd int) error) (*os.File, error) {
	f, err := openDir(at, name, unix.O_RDONLY)
	if !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	if err := mkdir(int(at.Fd())); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	return openDir(at, name, unix.O_RDONLY)
}

// freshMode is that of a directory that is made.
const freshMode = 0o755

// openSubPath opens a directory of a volume and closes the volume's. What is not there is
// made for its owner. If resumes is set, so is what a program that was killed had just made.
// Another sandbox may change the tree at the same time: each name is looked up in an open
// directory, and no link is followed.
func openSubPath(dir *os.File, path string, fresh owner, resumes bool) (*os.File, error) {
	for name := range strings.SplitSeq(path, "/") {
		made := false
		next, err := openOrMake(dir, name, func(fd int) error {
			made = true
			return crashpoint.Do(crashpoint.VolumeSubPath, func() error { return unix.Mkdirat(fd, name, 0) })
		})
		if err == nil && (made || resumes) {
			err = fresh.giveNew(next)
		}
		dir.Close()
		if err != nil {
			if next != nil {
				next.Close()
			}
			return nil, fmt.Errorf("subPath %s: %w", path, err)
		}
		dir = next
	}
	return dir, nil
}
