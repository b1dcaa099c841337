// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/fsys"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/volume/freshdir"
)

// owner is whom a directory is given to, in ids of the host.
type owner struct {
	// uid, gid and mode are those of a directory that is made.
	uid, gid int
	mode     uint32
	// wantUID and wantGID are those that the manifest names, -1 for none, and wantMode nil.
	wantUID, wantGID int
	wantMode         *uint32
}

// rootOf is root of the sandbox.
func rootOf(ids *idmap.Maps) owner {
	uid, gid := ids.Owner()
	return owner{uid: uid, gid: gid, mode: freshMode, wantUID: -1, wantGID: -1}
}

// ownerOf is whom a directory is given to where a manifest says so.
func ownerOf(said *desired.Ownership, ids *idmap.Maps) (owner, error) {
	o := rootOf(ids)
	if said == nil {
		return o, nil
	}
	var uids, gids []specs.LinuxIDMapping
	if ids != nil {
		uids, gids = ids.UIDs, ids.GIDs
	}
	for _, id := range []struct {
		name     string
		said     *uint32
		maps     []specs.LinuxIDMapping
		is, want *int
	}{{"uid", said.UID, uids, &o.uid, &o.wantUID}, {"gid", said.GID, gids, &o.gid, &o.wantGID}} {
		if id.said == nil {
			continue
		}
		host, ok := idmap.OnHost(id.maps, *id.said)
		if !ok {
			return o, fmt.Errorf("%s %d is nobody on the host; map it with idMappings", id.name, *id.said)
		}
		*id.is, *id.want = int(host), int(host)
	}
	if said.Mode != "" {
		o.mode = said.Mode.Bits()
		o.wantMode = &o.mode
	}
	return o, nil
}

// give gives a directory that was just made to its owner. The mode comes last: a change of
// the owner takes bits of it away.
func (o owner) give(dir *os.File) error {
	return errors.Join(dir.Chown(o.uid, o.gid), unix.Fchmod(int(dir.Fd()), o.mode))
}

// giveNew gives a directory that has no permissions yet and nothing in it: one that was just
// made, or whose maker was killed before it gave it away. Others are left as they are.
func (o owner) giveNew(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil || st.Mode&0o777 != 0 {
		return err
	}
	if empty, err := freshdir.Is(dir); err != nil || !empty {
		return err
	}
	return o.give(dir)
}

// giveEmpty gives a directory to the owner if nothing is in it.
func (o owner) giveEmpty(dir *os.File) error {
	empty, err := freshdir.Is(dir)
	if err != nil || !empty {
		return err
	}
	return o.giveRoot(dir)
}

// giveRoot gives a directory itself to whom the manifest names.
func (o owner) giveRoot(dir *os.File) error {
	return crashpoint.Do(crashpoint.VolumeRoot, func() error {
		if err := dir.Chown(o.wantUID, o.wantGID); err != nil || o.wantMode == nil {
			return err
		}
		return unix.Fchmod(int(dir.Fd()), *o.wantMode)
	})
}

// differs says whether something has another owner than the manifest names.
func (o owner) differs(st *unix.Stat_t) bool {
	return o.wantUID >= 0 && int(st.Uid) != o.wantUID || o.wantGID >= 0 && int(st.Gid) != o.wantGID
}

// Progress is how far a change of the owner of a volume is.
type Progress struct {
	Began time.Time `json:"began"`
	// Files are those that were looked at so far.
	Files int64 `json:"files"`
}

const progressFile = "progress.json"

// tellEvery is after how many files it is told how far a change is.
const tellEvery = 5000

// giveAll gives the directory of a volume, and all that is in it, to the owner, if it has
// another one.
func (v *Volume) giveAll(ctx context.Context, dir *os.File, o owner) error {
	files, err := giveTree(ctx, dir, o, (*entry).chown, v.tell)
	if err == nil && files >= tellEvery {
		err = atomicfile.Remove(v.dir, progressFile)
	}
	if err != nil {
		return fmt.Errorf("change its owner: after %d files, which the next start passes over: %w", files, err)
	}
	return nil
}

// giveTree gives a directory, and all that is in it, to the owner, if it has another one. The
// directory itself comes last: after a crash it shows that the work is not done. What was done
// is passed over then. No link is followed, whatever other sandboxes change meanwhile. It
// returns how many files it has looked at.
func giveTree(ctx context.Context, dir *os.File, o owner, chown func(e *entry, uid, gid int) error, tell func(*Progress)) (files int64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return 0, err
	}
	if !o.differs(&st) && (o.wantMode == nil || st.Mode&0o7777 == *o.wantMode) {
		return 0, nil
	}
	operation.Waits(ctx) // it takes as long as there are files
	p := Progress{Began: time.Now().UTC().Truncate(time.Second)}
	err = walk(ctx, dir, func(e *entry) error {
		if p.Files++; p.Files%tellEvery == 0 {
			tell(&p)
		}
		if e.dir == nil || !o.differs(&e.stat) {
			return nil
		}
		err := crashpoint.Do(crashpoint.VolumeChown, func() error { return chown(e, o.wantUID, o.wantGID) })
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EXDEV) { // gone, or a mount
			return fmt.Errorf("%s: %w", shown(e.path), err)
		}
		return nil
	})
	if err == nil {
		err = o.giveRoot(dir)
	}
	return p.Files, err
}

// chown changes the owner of what a walk came to, and never of what a link leads to, or of a
// file that the host has mounted there.
func (e *entry) chown(uid, gid int) error {
	if e.open != nil {
		return unix.Fchown(int(e.open.Fd()), uid, gid)
	}
	f, err := dirfd.OpenFd(int(e.dir.Fd()), e.name, unix.O_PATH|unix.O_NOFOLLOW, in)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fchownat(int(f), "", uid, gid, unix.AT_EMPTY_PATH), f.Close())
}

// tell writes down how far a change of the owner is, for those who look. It need not
// succeed.
func (v *Volume) tell(p *Progress) {
	if b, err := json.Marshal(p); err == nil {
		_ = atomicfile.In{Dir: fsys.Of(v.dir)}.Publish(progressFile, b, 0o600)
	}
}

// progress is how far a change of the owner of the volume is, nil if there is none.
func (v *Volume) progress() *Progress {
	b, err := v.readSmall(progressFile)
	p := &Progress{}
	if err != nil || json.Unmarshal(b, p) != nil {
		return nil
	}
	return p
}
