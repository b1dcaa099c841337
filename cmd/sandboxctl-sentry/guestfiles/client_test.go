// SPDX-License-Identifier: Apache-2.0

package guestfiles

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"sandboxctl.dev/cmd/sandboxctl-sentry/clientwork"
)

// hostile is a file system that a guest serves: one directory, which looks as the test says.
type hostile struct {
	vfs.FilesystemImpl // what is not called

	fs     vfs.Filesystem
	dentry vfs.Dentry
	vfs    *vfs.VirtualFilesystem
	mount  *vfs.Mount
	// list has the directory tell its names.
	list func(ctx context.Context, tell func(name string) error) error
	// child is what a name in it is.
	child func(ctx context.Context) (linux.Statx, error)
}

type hostileType struct{}

func (hostileType) GetFilesystem(context.Context, *vfs.VirtualFilesystem, *auth.Credentials, string, vfs.GetFilesystemOptions) (*vfs.Filesystem, *vfs.Dentry, error) {
	return nil, nil, linuxerr.ENODEV
}
func (hostileType) Name() string            { return "hostile" }
func (hostileType) Release(context.Context) {}

func (h *hostile) Release(context.Context) {}

// StatAt implements vfs.FilesystemImpl.
func (h *hostile) StatAt(ctx context.Context, rp *vfs.ResolvingPath, _ vfs.StatOptions) (linux.Statx, error) {
	if rp.Done() || !strings.HasPrefix(rp.Component(), "f") {
		return linux.Statx{Mode: linux.ModeDirectory | 0o755}, nil
	}
	return h.child(ctx)
}

// OpenAt implements vfs.FilesystemImpl.
func (h *hostile) OpenAt(_ context.Context, rp *vfs.ResolvingPath, opts vfs.OpenOptions) (*vfs.FileDescription, error) {
	d := &hostileDir{h: h}
	if err := d.fd.Init(d, opts.Flags, auth.CredentialsFromContext(context.Background()), rp.Mount(), &h.dentry, &vfs.FileDescriptionOptions{}); err != nil {
		return nil, err
	}
	return &d.fd, nil
}

// A dentry that is always there.
type always struct{}

func (always) IncRef()                                                          {}
func (always) TryIncRef() bool                                                  { return true }
func (always) DecRef(context.Context)                                           {}
func (always) InotifyWithParent(context.Context, uint32, uint32, vfs.EventType) {}
func (always) Watches() *vfs.Watches                                            { return nil }
func (always) OnZeroWatches(context.Context)                                    {}

// file is what a directory has of other files, where it has nothing of its own.
type file struct{ vfs.FileDescriptionDefaultImpl }

type hostileDir struct {
	file
	vfs.DirectoryFileDescriptionDefaultImpl
	vfs.NoLockFD

	fd vfs.FileDescription
	h  *hostile
}

func (d *hostileDir) Release(context.Context) {}
func (d *hostileDir) Stat(context.Context, vfs.StatOptions) (linux.Statx, error) {
	return linux.Statx{Mode: linux.ModeDirectory | 0o755}, nil
}
func (d *hostileDir) SetStat(context.Context, vfs.SetStatOptions) error { return nil }
func (d *hostileDir) Seek(context.Context, int64, int32) (int64, error) { return 0, nil }
func (d *hostileDir) IterDirents(ctx context.Context, cb vfs.IterDirentsCallback) error {
	return d.h.list(ctx, func(name string) error { return cb.Handle(vfs.Dirent{Name: name}) })
}

// copyOut begins a copy of a directory d, whose client reads its first line.
func (h *hostile) copyOut(t *testing.T) (theirs *os.File, ended <-chan struct{}) {
	t.Helper()
	h.vfs = new(vfs.VirtualFilesystem)
	ctx := context.Background()
	if err := h.vfs.Init(ctx); err != nil {
		t.Fatal(err)
	}
	h.fs.Init(h.vfs, hostileType{}, h)
	h.dentry.Init(always{})
	h.mount = h.vfs.NewDisconnectedMount(&h.fs, &h.dentry, &vfs.MountOptions{})
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	work, err := clientwork.NewGroup(1).Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(work.Stop)
	over := make(chan struct{})
	err = serve(work, fds[0], func(c *client) {
		defer close(over)
		out(&tree{&waiting{ctx, c.left}, auth.NewRootCredentials(auth.NewRootUserNamespace()), h.vfs, nil, vfs.MakeVirtualDentry(h.mount, &h.dentry)}, c, "/d", false)
	})
	if err != nil {
		t.Fatal(err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "client")
	var line [1]byte
	if _, err := io.ReadFull(theirs, line[:]); err != nil || line[0] != '\n' {
		t.Fatalf("%q %v", line, err)
	}
	return theirs, over
}

// A copy ends when its client is gone, whatever the guest says or does not say.
func TestClientGone(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	for what, h := range map[string]*hostile{
		"names without end, that are not there": {
			list: func(_ context.Context, tell func(string) error) error {
				for i := 0; ; i++ {
					if err := tell(fmt.Sprint("f", i)); err != nil {
						return err
					}
				}
			},
			child: func(context.Context) (linux.Statx, error) { return linux.Statx{}, linuxerr.ENOENT },
		},
		"files without end, that are not copied": {
			list: func(_ context.Context, tell func(string) error) error { return tell("f") },
			child: func(context.Context) (linux.Statx, error) {
				return linux.Statx{Mode: linux.ModeSocket}, nil
			},
		},
		"a page without end": {list: func(_ context.Context, tell func(string) error) error {
			for {
				if err := tell("."); err != nil {
					return err
				}
			}
		}},
		"pages without names":    {list: func(_ context.Context, tell func(string) error) error { return tell("..") }},
		"no answer to a listing": {list: func(ctx context.Context, _ func(string) error) error { return ctx.Block(never) }},
		"no answer about a name": {
			list:  func(_ context.Context, tell func(string) error) error { return tell("f") },
			child: func(ctx context.Context) (linux.Statx, error) { return linux.Statx{}, ctx.Block(never) },
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			client, over := h.copyOut(t)
			select {
			case <-over:
				t.Fatal("it ends by itself: this test sees nothing")
			case <-time.After(100 * time.Millisecond):
			}
			client.Close()
			select {
			case <-over:
			case <-time.After(20 * time.Second):
				t.Error("it goes on without a client")
			}
		})
	}
}

// A directory whose first page has no names but its own is copied whole.
func TestPageOfDots(t *testing.T) {
	t.Parallel()
	pages := [][]string{{".", ".."}, {"f"}, {}}
	h := &hostile{
		list: func(_ context.Context, tell func(string) error) error {
			page := pages[0]
			pages = pages[1:]
			for _, n := range page {
				if err := tell(n); err != nil {
					return err
				}
			}
			return nil
		},
		child: func(context.Context) (linux.Statx, error) { return linux.Statx{Mode: linux.ModeSocket}, nil },
	}
	client, _ := h.copyOut(t)
	defer client.Close()
	b, err := io.ReadAll(client)
	if err != nil || !strings.HasSuffix(string(b), `{"skipped":1}`) {
		t.Errorf("%q %v", b[max(0, len(b)-100):], err)
	}
}
