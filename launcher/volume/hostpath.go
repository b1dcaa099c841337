// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/fsys"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/setup"
)

// mostOwned bounds the files of one directory of the host whose owners are changed: a
// mistaken path is not walked for days.
const mostOwned = 5_000_000

// OwnershipFile is in the directory of a sandbox while owners of files of the host are
// changed for it.
const OwnershipFile = "ownership.json"

// HostProgress is how far that is.
type HostProgress struct {
	Progress

	Path string `json:"path"`
}

// GiveHostPaths gives directories of the host to the owners that a manifest names. The host
// policy allows it by now. dir is the directory of the sandbox, where it is told how far the
// work is.
//
// Who may write in such a tree must not get the files of others by it: nothing is done to
// what is reached through a link or a mount, to a file that has other names, which may be
// outside, to a device, and to what is never shared with a sandbox.
func GiveHostPaths(ctx context.Context, st *setup.Setup, host *hostfs.Host, dir *os.File) error {
	for i := range st.App().Volumes {
		src := &st.App().Volumes[i]
		if src.Owner == nil || src.Path == "" || st.Policy == nil {
			continue
		}
		err := giveHostPath(ctx, st, src, host, func(p *Progress) { tellIn(dir, src.Path, p) })
		if HostOwnership(dir) != nil { // also that of a start that was killed
			err = errors.Join(err, atomicfile.Remove(dir, OwnershipFile))
		}
		if err != nil {
			return fmt.Errorf("%s: ownership of %s: %w", src.Field, src.Path, err)
		}
	}
	return nil
}

func giveHostPath(ctx context.Context, st *setup.Setup, src *setup.Source, host *hostfs.Host, tell func(*Progress)) error {
	owner, err := ownerOf(src.Owner, st.Maps)
	if err != nil {
		return operation.Permanentf("%w", err)
	}
	top, err := hostfs.OpenToChange(src, st, host)
	if err != nil {
		return err
	}
	defer top.Close()
	if src.Owner.When == desired.OwnershipFresh {
		return owner.giveEmpty(top)
	}
	most := st.Policy.StartTime()
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("not done after %s, which is maxStartTime of the host policy; the next start goes on", most))
	defer cancel()
	n := 0
	_, err = giveTree(ctx, top, owner, func(e *entry, uid, gid int) error {
		if n++; n > mostOwned {
			return operation.Precondition(fmt.Errorf("there are more than %d files with other owners; chown them on the host", mostOwned))
		}
		return e.chownAlone(uid, gid)
	}, tell)
	return err
}

// tellIn writes down how far a change is, for those who look. It need not succeed.
func tellIn(dir *os.File, path string, p *Progress) {
	if b, err := json.Marshal(&HostProgress{*p, path}); err == nil {
		_ = atomicfile.In{Dir: fsys.Of(dir)}.Publish(OwnershipFile, b, 0o600)
	}
}

// chownAlone changes the owner of a directory, or of a file that has no other name. It is
// looked at again after it was opened: by then the name may be that of another file.
//
// Who swaps names can remove the one in the tree in between, and the only name that the
// count tells of is then one outside. So the name by which the file was opened must be
// there still, after the file was seen to have one: it can't have gone and come back, the
// kernel makes another entry then.
func (e *entry) chownAlone(uid, gid int) error {
	if e.open != nil {
		return unix.Fchown(int(e.open.Fd()), uid, gid)
	}
	f, err := dirfd.OpenFd(int(e.dir.Fd()), e.name, unix.O_PATH|unix.O_NOFOLLOW, in)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(f), &st)
	if err == nil && mayGive(st.Mode) && st.Nlink == 1 {
		var still bool
		if still, err = dirfd.HasName(int(f), e.name); still {
			err = unix.Fchownat(int(f), "", uid, gid, unix.AT_EMPTY_PATH)
		}
	}
	return errors.Join(err, f.Close())
}

// mayGive says what kinds of files are given away. A node of a device is a name for something
// that is not in the tree: its new owner would read the whole disk.
func mayGive(mode uint32) bool {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK:
		return true
	}
	return false
}

// HostOwnership is how far a change of owners for a sandbox is, nil if there is none.
func HostOwnership(dir *os.File) *HostProgress {
	b, err := readSmall(dir, OwnershipFile)
	p := &HostProgress{}
	if err != nil || json.Unmarshal(b, p) != nil {
		return nil
	}
	return p
}
