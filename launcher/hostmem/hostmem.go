// SPDX-License-Identifier: Apache-2.0

package hostmem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	meminfo  = "/proc/meminfo"
	pressure = "/proc/pressure/memory"
	// stalled is when the kernel tells of pressure: some process has waited for memory for a
	// fifth of two seconds. A window that is a multiple of two seconds needs no privilege.
	stalled = "some 400000 2000000"
)

// Available is how many bytes new processes could have without anything being swapped, as the
// kernel estimates it.
func Available() (uint64, error) { return available(meminfo) }

func available(file string) (uint64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read free memory: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "MemAvailable:" || f[2] != "kB" {
			continue
		}
		kib, err := strconv.ParseUint(f[1], 10, 53)
		if err != nil {
			return 0, fmt.Errorf("read free memory: %w", err)
		}
		return kib << 10, nil
	}
	return 0, fmt.Errorf("read free memory: %s has no MemAvailable", file)
}

// Watch calls short whenever processes wait for memory, at most once in two seconds, until the
// context ends. It costs nothing while none does. A kernel that does not tell is an error.
func Watch(ctx context.Context, short func()) error { return watch(ctx, pressure, short) }

func watch(ctx context.Context, file string, short func()) error {
	// One descriptor is one trigger.
	f, err := os.OpenFile(file, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("watch memory: %w", err)
	}
	defer f.Close()
	if _, err := f.Write([]byte(stalled + "\x00")); err != nil {
		return fmt.Errorf("watch memory: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("watch memory: %w", err)
	}
	defer r.Close()
	// Its end is the end of the poll.
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(ended); w.Close() })
	defer func() {
		if stop() {
			w.Close()
		} else {
			<-ended
		}
	}()
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}, {Fd: int32(r.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("watch memory: %w", err)
		case fds[1].Revents != 0:
			return nil
		case fds[0].Revents&unix.POLLPRI != 0:
			short()
		case fds[0].Revents != 0:
			return fmt.Errorf("watch memory: poll says %#x", fds[0].Revents)
		}
	}
}
