// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/launcher/pty"
)

// maxConfig bounds config.json and process.json.
const maxConfig = 4 << 20

// readBundle reads the config.json of a bundle. Fields this program does not
// know are passed over, as the specification wants.
func readBundle(dir string) (*specs.Spec, error) {
	path := filepath.Join(dir, "config.json")
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: expected a regular file", path)
	}
	var cfg specs.Spec
	if err := readJSON(path, &cfg); err != nil {
		return nil, err
	}
	return &cfg, nil
}

// ReadProcess reads a file such as `exec --process` names.
func ReadProcess(path string) (*specs.Process, error) {
	var p specs.Process
	if err := readJSON(path, &p); err != nil {
		return nil, err
	}
	return &p, nil
}

// ReadResources reads linux.resources from a file, or from stdin if path is "-".
func ReadResources(path string, stdin io.Reader, r *specs.LinuxResources) error {
	if path == "-" {
		return decodeJSON(path, stdin, r)
	}
	return readJSON(path, r)
}

func readJSON(path string, v any) error {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return decodeJSON(path, f, v)
}

func decodeJSON(path string, r io.Reader, v any) error {
	b, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > maxConfig {
		return fmt.Errorf("read %s: more than %d bytes", path, maxConfig)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}

// WritePIDFile writes a pid whole, so that nobody reads half of it, and over
// nothing but a regular file.
func WritePIDFile(path string, pid int) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	defer dir.Close()
	if err := atomicfile.Write(dir, filepath.Base(path), []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}

// errNoTerminal: there is nobody whom the terminal could be for.
var errNoTerminal = errors.New("process.terminal is set: --console-socket is needed")

// OpenTerminal makes a terminal, sends its master side over the socket and
// returns the other, for a process to be executed. Its size is the kernel's
// choice if none is given.
func OpenTerminal(socket string, size *specs.Box) (slave *os.File, err error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	defer master.Close()
	if size != nil {
		err = setSize(master, size)
	}
	switch {
	case err != nil:
	case socket == "":
		err = errNoTerminal
	default:
		err = sendTerminal(socket, master)
	}
	if err != nil {
		return nil, errors.Join(err, slave.Close())
	}
	return slave, nil
}

func setSize(master *os.File, size *specs.Box) error {
	if size.Height > math.MaxUint16 || size.Width > math.MaxUint16 {
		return fmt.Errorf("process.consoleSize: expected at most %d, got %d by %d", math.MaxUint16, size.Width, size.Height)
	}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)}); err != nil {
		return fmt.Errorf("set size of terminal: %w", err)
	}
	return nil
}

// consoleTimeout bounds the handing over of a terminal: a socket that nobody
// serves must not hang the caller.
const consoleTimeout = 10 * time.Second

// sendTerminal sends a descriptor over the socket at path, as runc does: the
// payload is its name.
func sendTerminal(path string, f *os.File) error {
	conn, err := net.DialTimeout("unix", path, consoleTimeout)
	if err != nil {
		return fmt.Errorf("connect to console socket: %w", err)
	}
	err = conn.SetDeadline(time.Now().Add(consoleTimeout))
	if err == nil {
		_, _, err = conn.(*net.UnixConn).WriteMsgUnix([]byte(f.Name()), unix.UnixRights(int(f.Fd())), nil)
	}
	if err = errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("send terminal: %w", err)
	}
	return nil
}
