// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
)

// ErrNotNamespace says that a path does not lead to a network namespace.
var ErrNotNamespace = errors.New("not a network namespace")

// Namespace is an open network namespace. It stays the same whatever happens
// to the path or process it was found by.
type Namespace struct{ f *os.File }

// Open opens the namespace at a path such as /run/netns/NAME. The path is
// resolved once; ErrNotNamespace if it leads to anything else, which is not read
// from or waited for.
func Open(path string) (*Namespace, error) {
	f, kind, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	if kind != unix.CLONE_NEWNET {
		return nil, errors.Join(fmt.Errorf("open network namespace %s: %w but one of another kind", path, ErrNotNamespace), f.Close())
	}
	return &Namespace{f}, nil
}

// Kind says what a path leads to: CLONE_NEWNET for a network namespace, and so
// on for the other kinds. ErrNotNamespace if it is none, as for Open.
func Kind(path string) (int, error) {
	f, kind, err := open(path)
	if err != nil {
		return 0, fmt.Errorf("open namespace %s: %w", path, err)
	}
	return kind, f.Close()
}

func open(path string) (f *os.File, kind int, err error) {
	// A FIFO would block and a device could act on being opened: nothing but a
	// file of nsfs is opened for real.
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	defer unix.Close(at)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(at, &fs); err != nil {
		return nil, 0, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return nil, 0, fmt.Errorf("%w: it is not on nsfs", ErrNotNamespace)
	}
	f, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", at))
	if err != nil {
		return nil, 0, err
	}
	kind, err = unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, kind, nil
}

// Of opens the namespace of the process that a pidfd stands for; the pidfd stays
// the caller's.
func Of(pidfd int) (*Namespace, error) {
	dup, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate pidfd: %w", err)
	}
	return &Namespace{os.NewFile(uintptr(dup), "pidfd")}, nil
}

// Close releases the namespace.
func (n *Namespace) Close() {
	_ = n.f.Close() // nothing was written to it
}

// Inode identifies a namespace among those that exist at a time on one boot.
func (n *Namespace) Inode() (uint64, error) {
	var st unix.Stat_t
	err := n.Do(func() error { return unix.Stat(current, &st) })
	if err != nil {
		return 0, fmt.Errorf("look at network namespace: %w", err)
	}
	return st.Ino, nil
}

// current is the namespace of the calling thread.
const current = "/proc/thread-self/ns/net"

// File opens the file that stands for the namespace in calls of netlink.
func (n *Namespace) File() (f *os.File, err error) {
	err = n.Do(func() error {
		f, err = os.Open(current)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return f, nil
}

// IsOwn says whether it is the namespace of this program.
func (n *Namespace) IsOwn() (bool, error) {
	var own unix.Stat_t
	if err := unix.Stat(current, &own); err != nil {
		return false, fmt.Errorf("look at own network namespace: %w", err)
	}
	ino, err := n.Inode()
	return ino == own.Ino, err
}

// Do calls fn in the namespace: sockets that it opens and processes that it
// starts are there. fn must not start goroutines that matter.
func (n *Namespace) Do(fn func() error) error {
	return elsewhere(func() error {
		if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return nil
	}, fn)
}

// elsewhere calls fn on a thread that enter has put into another network namespace.
func elsewhere(enter, fn func() error) error {
	done := make(chan error, 1)
	// A goroutine of its own: if the way back fails, its thread ends with it.
	go func() { done <- thereAndBack(enter, fn) }()
	return <-done
}

func thereAndBack(enter, fn func() error) error {
	runtime.LockOSThread()
	own, err := os.Open(current)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer own.Close()
	if err := enter(); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = fn()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked: Go ends it, nobody else ever runs on it.
		return errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// Join opens a namespace for a process to be started in. A path that leads to the
// host's own namespace is the host's network by another name.
func Join(path string) (*Namespace, error) {
	ns, err := Open(path)
	if errors.Is(err, ErrNotNamespace) {
		return nil, operation.Permanentf("%w", err)
	}
	if err != nil {
		return nil, err
	}
	own, err := ns.IsOwn()
	if err == nil && own {
		err = operation.Permanentf("join network namespace %s: it is the host's own; ask for the host's network instead", path)
	}
	if err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// LookAt returns the inode of the namespace at a path, 0 if there is none, and why no
// sandbox can be started in it, nil if one can.
func LookAt(path string) (inode uint64, why error) {
	ns, err := Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("network namespace %s does not exist", filepath.Base(path))
	case errors.Is(err, ErrNotNamespace):
		return 0, nil // the start is refused, for good
	case err != nil:
		return 0, err
	}
	defer ns.Close()
	if inode, err = ns.Inode(); err != nil {
		return 0, err
	}
	if own, err := ns.IsOwn(); err == nil && own {
		return inode, nil // refused as well
	}
	cfg, err := ns.Scrape()
	if err == nil && !cfg.HasInterfaces() {
		err = NotReady(filepath.Base(path))
	}
	return inode, err
}

// NotReady says that a namespace has nothing for a sandbox.
func NotReady(name string) error {
	return errors.New("no interface of network namespace " + name + " is up and has an address")
}

// PutBack puts a configuration back into the namespace at a path, if it is still the
// one with the inode. One that is gone has nothing to put it into.
func PutBack(path string, inode uint64, config []byte) error {
	ns, err := Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotNamespace) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	if ino, err := ns.Inode(); err != nil || ino != inode {
		return err // another one by now
	}
	var cfg Config
	if err := json.Unmarshal(config, &cfg); err != nil {
		return fmt.Errorf("decode network configuration: %w", err)
	}
	if err := ns.Restore(&cfg); err != nil {
		return fmt.Errorf("put network back: %w", err)
	}
	return nil
}
