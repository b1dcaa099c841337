// SPDX-License-Identifier: Apache-2.0

// Package procfs reads what /proc says of the processes of this host. A process may
// end at any moment, and its number may become another's: who must know which process
// it was has opened a pidfd before, and compares.
package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PIDs lists the processes. It uses no pattern: a /proc that can't be read would match
// nothing, and a sandbox that runs would be started a second time.
func PIDs() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	var out []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			out = append(out, pid)
		}
	}
	if err == nil && len(out) == 0 {
		err = errors.New("/proc has none")
	}
	return out, err
}

// Path is a file or directory of a process.
func Path(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// Read reads a file of a process. A start waits for this, once for each process of the
// host: os.ReadFile makes more than twice as many system calls.
func Read(pid int, file string) ([]byte, error) {
	name := Path(pid, file)
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var out []byte
	var b [4096]byte
	for {
		n, err := unix.Read(fd, b[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		case n < len(b)/2:
			// Its end: these files fill what they are given, but for less than an entry.
			return append(out, b[:n]...), nil
		default:
			out = append(out, b[:n]...)
		}
	}
}

// UnlessEnded is the error of a look at a process, nil if the process has ended.
func UnlessEnded(err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return fmt.Errorf("look at a process: %w", err)
}

// Field is a line of /proc/PID/status without its key, "" if there is no such line.
func Field(status []byte, key string) string {
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// Status is a field of a process's status, "" if it can't be read.
func Status(pid int, key string) string {
	b, err := Read(pid, "status")
	if err != nil {
		return ""
	}
	return Field(b, key)
}
