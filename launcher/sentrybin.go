// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/wire"
)

// SentryName is the file name of the sentry binary.
const SentryName = "sandboxctl-sentry"

// handshakeTimeout bounds `sandboxctl-sentry version`.
const handshakeTimeout = 20 * time.Second

// FindSentry returns the path of the sentry binary: explicit if that is not
// empty, else the one beside this program.
func FindSentry(explicit string) (string, error) {
	if explicit != "" {
		return filepath.Abs(explicit)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find sentry: %w", err)
	}
	path := filepath.Join(filepath.Dir(self), SentryName)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find sentry: expected %s beside sandboxctl; build both with `make build` or name it with --sentry: %w", path, err)
	}
	return path, nil
}

// sentryBinary is a sentry binary that is checked when it changes on disk.
type sentryBinary struct {
	path string

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

// open returns the binary as a descriptor to execute, and its version. What is
// checked and what is executed are the same file, also when an upgrade
// replaces the path in between.
func (b *sentryBinary) open(ctx context.Context) (*os.File, string, error) {
	fd, err := unix.Open(b.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("open sentry %s: %w", b.path, err)
	}
	f := os.NewFile(uintptr(fd), b.path)
	v, err := b.check(ctx, f)
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("check sentry %s: %w", b.path, err), f.Close())
	}
	return f, v, nil
}

func (b *sentryBinary) check(ctx context.Context, f *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	id := fileID{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.version != "" && b.checked == id {
		return b.version, nil
	}
	v, err := handshake(ctx, proc.FDPath(f))
	if err != nil {
		return "", err
	}
	b.checked, b.version = id, v
	return v, nil
}

// handshake asks the binary for its protocol version. It runs code of the
// binary, so it is given nothing: no environment, no input, no descriptors.
func handshake(ctx context.Context, path string) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "version")
	cmd.Args[0] = SentryName
	cmd.Env = []string{}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err = proc.StartCommand(cmd); err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return "", fmt.Errorf("run it: %w; is it executable, and its filesystem not mounted noexec?", err)
		}
		return "", fmt.Errorf("run it: %w: %s", err, untrusted.Line(stderr.String(), 200))
	}
	rest, ok := strings.CutPrefix(out.String(), wire.HandshakePrefix)
	protocol, gvisor, ok2 := strings.Cut(strings.TrimSpace(rest), " gvisor=")
	if !ok || !ok2 {
		return "", fmt.Errorf("it answered %q; expected a sandboxctl-sentry", untrusted.Line(out.String(), 100))
	}
	if n, err := strconv.Atoi(protocol); err != nil || n != wire.Protocol {
		return "", fmt.Errorf("it speaks protocol %s, this sandboxctl speaks %d; install both from the same release", protocol, wire.Protocol)
	}
	return gvisor, nil
}

// CheckSentry runs the handshake once and returns gVisor's version.
func CheckSentry(ctx context.Context, path string) (string, error) {
	b := &sentryBinary{path: path}
	f, v, err := b.open(ctx)
	if err != nil {
		return "", err
	}
	return v, f.Close()
}
