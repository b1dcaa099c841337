// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/projquota"
	"sandboxctl.dev/launcher/volume/freshdir"
)

// ErrNoSizes says that volumes of this state directory can't have sizes.
var ErrNoSizes = errors.New("a size can't be enforced here")

var errUncounted = fmt.Errorf("%w: the volume was made where there were no project quotas, or copied from there: `sandboxctl volume backup` it, remove it, and restore it", ErrNoSizes)

// quotas are the calls that limit a directory; tests have others, of a kernel in memory.
type quotas struct {
	available func(dir *os.File) error
	project   func(dir *os.File) (uint32, error)
	assign    func(dir *os.File, project uint32) error
	get       func(dir *os.File, project uint32) (projquota.Usage, error)
	limit     func(dir *os.File, project uint32, size int64) error
	free      func(dir *os.File, from uint32) (uint32, error)
}

var kernel = &quotas{projquota.Available, projquota.Project, projquota.Assign, projquota.Get, projquota.Limit, projquota.Free}

// CanLimit returns nil if volumes of a state directory can have sizes, else why not.
func CanLimit(state *os.File) error { return kernel.canLimit(state) }

func (q *quotas) canLimit(state *os.File) error {
	if err := q.available(state); err != nil {
		return fmt.Errorf("%w: %w; mount it with project quotas (ext4: tune2fs -O project,quota and the mount option prjquota; XFS: the mount option prjquota), or leave the size out", ErrNoSizes, err)
	}
	return nil
}

// claimProject makes a new volume's directory a project of its own where there are any, so that
// a size can be set, changed, and compared with what is there, at any time.
func (v *Volume) claimProject(ctx context.Context, data *os.File) error {
	if v.store.quotas.available(v.store.state) != nil {
		return nil
	}
	id, err := v.store.nextProject(ctx)
	if err == nil {
		err = crashpoint.Do(crashpoint.VolumeProject, func() error { return v.store.quotas.assign(data, id) })
	}
	if err != nil {
		return fmt.Errorf("count what is in it: %w", err)
	}
	v.Project = id
	return nil
}

// claimSized is claimProject of a volume that holds no more than a size from the beginning.
func (v *Volume) claimSized(ctx context.Context, data *os.File, size int64) error {
	if err := v.claimProject(ctx, data); err != nil || size == 0 {
		return err
	}
	if err := v.store.quotas.canLimit(v.store.state); err != nil {
		return err
	}
	return crashpoint.Do(crashpoint.VolumeLimit, func() error { return v.store.quotas.limit(v.store.state, v.Project, size) })
}

// nextProject is a project that no volume has had, and nobody else uses.
func (s *Store) nextProject(ctx context.Context) (uint32, error) {
	lock, err := openDir(s.dir, ".", unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	if err := flock(ctx, lock, unix.LOCK_EX, lockPatience); err != nil { // that of no volume
		return 0, err
	}
	return projquota.Next(s.state, s.quotas.free)
}

// Want is how a volume is to be.
type Want struct {
	// Size is how much it may hold, 0 if nobody says: then it keeps what it has.
	Size int64
	// Fresh is whom it belongs to when it is made.
	Fresh *desired.Ownership
}

// Declare makes a volume, or changes the size of one that is there. It says whether there was
// something to do.
func (s *Store) Declare(ctx context.Context, name string, want Want) (changed bool, err error) {
	o, err := ownerOf(want.Fresh, nil)
	if err != nil {
		return false, err
	}
	before, err := s.Look(name)
	v, uerr := s.use(ctx, name, o, "", want.Size)
	if uerr != nil {
		return false, mendable(uerr)
	}
	defer v.Close()
	return err != nil || before.Problem != "" || before.Size != v.Size, nil
}

// sizeFor is the size that a volume is to have. A start enforces the one that it has: only the
// daemon changes that, by what the documents say now. A manifest on record may be older.
func (v *Volume) sizeFor(sandbox string, size int64) int64 {
	if sandbox != "" && v.Size != 0 {
		return v.Size
	}
	return size
}

// setSize compares the size of a volume with the one that is wanted, and sets it.
func (v *Volume) setSize(ctx context.Context, size int64) error {
	if size == 0 {
		return nil
	}
	if err := v.store.quotas.canLimit(v.store.state); err != nil {
		return operation.Precondition(fmt.Errorf("%w; if it is the size on record: `sandboxctl volume backup` it, remove it, and restore it without one", err))
	}
	mine, err := v.isProject()
	if err != nil {
		return err
	}
	if !mine {
		return operation.Precondition(errUncounted)
	}
	u, err := v.store.quotas.get(v.store.state, v.Project)
	if err != nil {
		return err
	}
	if !u.Limits(size) {
		// The file system first: what is on record is in force.
		err = crashpoint.Do(crashpoint.VolumeLimit, func() error { return v.store.quotas.limit(v.store.state, v.Project, size) })
	}
	if err != nil || v.Size == size {
		return err
	}
	return v.change(ctx, func() (bool, error) {
		v.Size = size
		return true, nil
	})
}

// isProject says whether a volume is the project on record. A copy of one never is.
func (v *Volume) isProject() (bool, error) {
	if v.Project == 0 {
		return false, nil
	}
	data, err := v.Data(unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer data.Close()
	has, err := v.store.quotas.project(data)
	return has == v.Project, err
}

// CanSize returns nil unless a volume is there that can't have a size.
func (s *Store) CanSize(name string) error {
	dir, err := s.open(name)
	if err != nil {
		return nil //nolint:nilerr // it is not there, or the start tells
	}
	defer dir.Close()
	v := &Volume{Meta: Meta{Name: name}, store: s, dir: dir}
	found, err := v.readMeta()
	if mine, merr := v.isProject(); found && errors.Join(err, merr) == nil && !mine {
		return errUncounted
	}
	return nil
}

// firstUse gives a volume that was declared, and that nothing has used yet, to its first
// sandbox.
func (v *Volume) firstUse(ctx context.Context, fresh owner, sandbox string) error {
	if !v.Unused || sandbox == "" {
		return nil
	}
	return v.change(ctx, func() (bool, error) {
		if !v.Unused {
			return false, nil
		}
		data, err := v.Data(unix.O_RDONLY)
		if err != nil {
			return false, err
		}
		defer data.Close()
		empty, err := freshdir.Is(data)
		if err == nil && empty {
			err = fresh.giveFirst(data)
		}
		v.Unused, v.CreatedFor = false, sandbox
		return err == nil, err
	})
}

// untouched says whether a volume was declared, and nothing has used it or is in it.
func (v *Volume) untouched() (bool, error) {
	if found, err := v.readMeta(); !found || err != nil || !v.Unused {
		return false, err
	}
	data, err := v.Data(unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer data.Close()
	return freshdir.Empty(data)
}

// change changes what is on record of a volume that is locked shared, while nobody else has
// it. what is called with what is on record by then, and says whether that has changed.
func (v *Volume) change(ctx context.Context, what func() (bool, error)) error {
	if err := flock(ctx, v.dir, unix.LOCK_EX, lockPatience); err != nil {
		return err
	}
	there, err := v.isThere()
	if err == nil && !there {
		err = operation.Precondition(ErrBusy) // somebody has removed it meanwhile
	}
	if err == nil {
		_, err = v.readMeta()
	}
	write := false
	if err == nil {
		write, err = what()
	}
	if err == nil && write {
		err = v.putMeta()
	}
	if err != nil {
		return err
	}
	return flock(ctx, v.dir, unix.LOCK_SH, lockPatience)
}

// release takes the limit of a removed volume away, but not that of the original of a copy.
func (v *Volume) release() {
	if mine, err := v.isProject(); err == nil && mine && v.Size != 0 {
		_ = v.store.quotas.limit(v.store.state, v.Project, 0)
	}
}

// Quota is what the file system says of a volume with a project, nil if there is nothing.
func (s *Store) Quota(m *Meta) *projquota.Usage {
	if m.Project == 0 || s.quotas.available(s.state) != nil {
		return nil
	}
	dir, err := s.open(m.Name)
	if err != nil {
		return nil
	}
	defer dir.Close()
	if mine, err := (&Volume{Meta: *m, store: s, dir: dir}).isProject(); err == nil && mine {
		if u, err := s.quotas.get(s.state, m.Project); err == nil {
			return &u
		}
	}
	return nil
}
