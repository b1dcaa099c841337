// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// ReadFile reads a regular file of the host that a manifest names, of at most limit
// bytes, as far as the policy lets a sandbox have it: what a volume could not show is
// not read either. id tells the file and its content from others, "" if it could not
// be opened.
func ReadFile(s *setup.Source, policy *hostpolicy.Policy, host *Host, limit int64) (text []byte, id string, err error) {
	src, err := OpenSource(s)
	if err != nil {
		return nil, "", fmt.Errorf("open %s: %w", s.Path, operation.PathPrecondition(err))
	}
	defer src.Close()
	st, err := statFile(src, s.Path)
	if err != nil {
		return nil, "", err
	}
	id = fileID(st)
	if err := mayShare(src, policy, host, nil, true); err != nil {
		return nil, id, err
	}
	f, err := os.OpenFile(proc.FDPath(src), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, id, fmt.Errorf("open %s: %w", s.Path, errors.Unwrap(err))
	}
	defer f.Close()
	if text, err = trustedfile.Read(f, st, settle, limit); err != nil {
		return nil, id, fmt.Errorf("read %s: %w", s.Path, err)
	}
	if int64(len(text)) > limit {
		return nil, id, operation.Precondition(fmt.Errorf("read %s: it has more than %d bytes", s.Path, limit))
	}
	return text, id, nil
}

// settle is how old the last change of a file must be where the kernel can't tell
// whether somebody writes it.
const settle = 200 * time.Millisecond

// statFile refuses what is no regular file, of a filesystem that is never shared.
func statFile(f *os.File, path string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), "", &st, unix.AT_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, operation.Precondition(fmt.Errorf("open %s: expected a regular file", path))
	}
	return &st, refuseKernelFS(f, path)
}

// refuseKernelFS refuses what is on a filesystem of the kernel's.
func refuseKernelFS(f *os.File, path string) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	if name, bad := refusedFS[fs.Type]; bad {
		return operation.Permanentf("open %s: it is on %s, which is never shared with a sandbox", path, name)
	}
	return nil
}

// mayShare refuses this program's own files, under whatever path, and unless it is read-only
// what root trusts.
func mayShare(f *os.File, policy *hostpolicy.Policy, host *Host, trusted []string, readOnly bool) error {
	spot, err := SpotOf(f)
	if err != nil {
		return err
	}
	table, err := ReadTable()
	if err != nil {
		return err
	}
	own, err := host.own(policy, trusted)
	if err != nil {
		return err
	}
	never, err := table.NeverShared(own)
	if err != nil {
		return err
	}
	_, err = table.Check(spot, readOnly, false, never)
	return err
}

// OpenToChange opens a directory of the host whose files root is about to change for a
// sandbox: what a sandbox could not have as a volume that it writes is not changed either.
func OpenToChange(s *setup.Source, st *setup.Setup, host *Host) (*os.File, error) {
	src, err := OpenSource(s)
	if err != nil {
		return nil, fmt.Errorf("open: %w", operation.PathPrecondition(err))
	}
	defer src.Close()
	if info, err := src.Stat(); err != nil || !info.IsDir() {
		return nil, operation.Precondition(errors.Join(errors.New("expected a directory"), err))
	}
	if err := refuseKernelFS(src, s.Path); err != nil {
		return nil, err
	}
	if err := mayShare(src, st.Policy, host, st.Trusted(), false); err != nil {
		return nil, err
	}
	return OpenBeneath(int(src.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY)
}

// LookAtFile is what ReadFile returns as id, of a path of which no component is a link.
func LookAtFile(path string) (id string, err error) {
	f, err := openNoLinks(path, unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := statFile(f, path)
	if err != nil {
		return "", err
	}
	return fileID(st), nil
}

// fileID is another one when a file is written or replaced. The time of the last change
// of its inode is no part of it: a backup that makes hard links changes that. Nor is
// the number of its device: a network filesystem gets another one each time it is mounted.
func fileID(st *unix.Stat_t) string {
	return fmt.Sprintf("%d:%d:%d.%09d", st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
}
