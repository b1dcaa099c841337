// SPDX-License-Identifier: Apache-2.0

package companion

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/wire"
)

// Names of the programs that are installed beside sandboxctl: those started for each
// sandbox, and the one that pulls images.
const (
	SentryName = "sandboxctl-sentry"
	GoferName  = gofer.Argv0
	ImageName  = wire.ImageName
)

// protocols are the versions of these programs that this one can work with.
var protocols = map[string]int{SentryName: wire.Protocol, GoferName: gofer.Protocol, ImageName: wire.ImageProtocol}

// handshakeTimeout bounds `sandboxctl-sentry version`.
const handshakeTimeout = 20 * time.Second

// Find returns the path of one of these programs: explicit if that is not
// empty, else the one beside this program.
func Find(name, explicit string) (string, error) {
	if explicit != "" {
		return filepath.Abs(explicit)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		flag := ""
		if _, kind, _ := strings.Cut(name, "-"); name != ImageName {
			flag = ", or name it with --" + kind
		}
		return "", fmt.Errorf("find %s: it must be in the directory of sandboxctl; install both from the same release%s: %w", name, flag, err)
	}
	return path, nil
}

// Check asks the program of a name at a path for its version, and returns
// that of gVisor in it. ImageName has its own.
func Check(ctx context.Context, name, path string) (string, error) {
	c := &Program{Name: name, Path: path}
	f, v, err := c.Open(ctx)
	if err != nil {
		return "", err
	}
	return v, f.Close()
}

// SameGVisor refuses a gofer and a sentry of different versions of gVisor: what
// they speak with each other is gVisor's own and changes with it.
func SameGVisor(sentry, gofer string) error {
	if sentry != gofer {
		return fmt.Errorf("%s has gVisor %s and %s has %s; install both from the same release", SentryName, sentry, GoferName, gofer)
	}
	return nil
}

// Program is one of these programs. It is checked when it changes on disk.
type Program struct {
	Name string
	Path string

	mu      sync.Mutex
	checked fileID
	version string
}

// fileID tells versions of a file apart.
type fileID struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// Open returns the binary as a descriptor to execute, and its version. What is
// checked and what is executed are the same file, also when an upgrade
// replaces the path in between.
func (c *Program) Open(ctx context.Context) (*os.File, string, error) {
	fd, err := unix.Open(c.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("open %s: %w", c.Path, err)
	}
	f := os.NewFile(uintptr(fd), c.Path)
	v, err := c.check(ctx, f)
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("check %s: %w", c.Path, err), f.Close())
	}
	return f, v, nil
}

// ID tells versions of a program apart: another one is another file, or was written since.
type ID struct{ file fileID }

// IDOf is the version of a program that was opened.
func IDOf(f *os.File) (ID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return ID{}, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	return ID{fileID{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}}, nil
}

func (c *Program) check(ctx context.Context, f *os.File) (string, error) {
	of, err := IDOf(f)
	if err != nil {
		return "", err
	}
	id := of.file
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version != "" && c.checked == id {
		return c.version, nil
	}
	v, err := handshake(ctx, c.Name, f)
	if err != nil {
		return "", err
	}
	c.checked, c.version = id, v
	return v, nil
}

// handshake asks the program for its protocol version. It runs code of the
// program, so it is given nothing: no environment, no input, and no descriptor but
// that of itself. It is executed by the number that this has in the child: between
// fork and exec Go may move another descriptor to the number that it has here.
func handshake(ctx context.Context, name string, program *os.File) (gvisor string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTimeout, fmt.Errorf("no answer within %s", handshakeTimeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, fmt.Sprintf("/proc/self/fd/%d", proc.FirstDonated), "version")
	cmd.ExtraFiles = []*os.File{program}
	cmd.Args[0] = name
	cmd.Env = []string{}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err = proc.StartCommand(cmd); err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("ask it for its version: %w", context.Cause(ctx))
		}
		if errors.Is(err, fs.ErrPermission) {
			return "", fmt.Errorf("run it: %w; is it executable, and its filesystem not mounted noexec?", err)
		}
		return "", fmt.Errorf("run it: %w: %s", err, untrusted.Line(stderr.String(), 200))
	}
	protocol, gvisor, ok := wire.ParseHandshake(name, out.String())
	if !ok {
		return "", fmt.Errorf("it answered %q; expected a %s", untrusted.Line(out.String(), 100), name)
	}
	if protocol != protocols[name] {
		return "", fmt.Errorf("it speaks protocol %d, this sandboxctl speaks %d; install both from the same release", protocol, protocols[name])
	}
	return gvisor, nil
}
