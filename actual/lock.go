// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/process"
)

// LockedBy is the pid of the daemon that holds the lock of the state directory, 0
// if none is known to. It asks the kernel and not a file, which a daemon can't
// write on a disk that is full.
func (s *Store) LockedBy() int {
	var st unix.Stat_t
	if unix.Fstat(int(s.RootDir().Fd()), &st) != nil {
		return 0
	}
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	if pid := lockHolder(string(b), st.Ino, func(_ int, dev string) bool {
		return dev == fmt.Sprintf("%02x:%02x", unix.Major(st.Dev), unix.Minor(st.Dev))
	}); pid != 0 {
		return pid
	}
	// Some filesystems (btrfs) tell another device than the kernel lists.
	return lockHolder(string(b), st.Ino, func(pid int, _ string) bool { return hasOpen(pid, &st) })
}

// lockHolder finds the holder of the lock of an inode in the list of the kernel, for
// whom is says that it is the one on the right device.
func lockHolder(locks string, ino uint64, is func(pid int, dev string) bool) int {
	for line := range strings.Lines(locks) {
		// 1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF; with -> it waits.
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" {
			continue
		}
		dev, isFile := strings.CutSuffix(f[5], fmt.Sprintf(":%d", ino))
		if pid, err := strconv.Atoi(f[4]); isFile && err == nil && pid > 1 && is(pid, dev) {
			return pid
		}
	}
	return 0
}

// hasOpen says whether a process has a file open. Not knowing is no.
func hasOpen(pid int, file *unix.Stat_t) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		var st unix.Stat_t
		if unix.Stat(dir+"/"+fd.Name(), &st) == nil && st.Dev == file.Dev && st.Ino == file.Ino {
			return true
		}
	}
	return false
}

// ErrLocked says that another daemon holds the state directory.
var ErrLocked = errors.New("state directory is in use by another daemon")

// Lock makes this process the daemon of the state directory for as long as it
// lives. ErrLocked, with the pid of the other, if there is one already. What is
// locked is the directory itself, so that removing a file in it frees nothing;
// the file only tells who holds it.
func (s *Store) Lock() error {
	fd, err := unix.Openat(int(s.RootDir().Fd()), lockFile, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	defer unix.Close(fd)
	for deadline := time.Now().Add(lockPatience); ; <-time.After(lockEvery) {
		err := crashpoint.Do(crashpoint.Lock, func() error { return unix.Flock(int(s.RootDir().Fd()), unix.LOCK_EX|unix.LOCK_NB) })
		if err == nil {
			break
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock state directory: %w", err)
		}
		var b [20]byte
		n, _ := unix.Pread(fd, b[:], 0)
		holder := strings.TrimSpace(string(b[:max(n, 0)]))
		if !hasEnded(holder) || time.Now().After(deadline) {
			return fmt.Errorf("lock state directory %s: %w (pid %s)", s.path, ErrLocked, holder)
		}
	}
	crashpoint.Before(crashpoint.LockFile)
	pid := strconv.Itoa(os.Getpid()) + "\n"
	// Written over, and cut after: on a full disk there is no room to begin anew.
	_, err = unix.Pwrite(fd, []byte(pid), 0)
	if err == nil {
		err = unix.Ftruncate(fd, int64(len(pid)))
	}
	crashpoint.After(crashpoint.LockFile)
	if err != nil && !atomicfile.NoSpace(err) { // it only tells others who it is
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}

// lockPatience is how long a lock may outlive a daemon that was killed: a child
// that it was just starting has it too, until it is another program.
const lockPatience = 5 * time.Second

// hasEnded says of a pid, as text, that no process has it but perhaps a zombie.
func hasEnded(pid string) bool {
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 1 {
		return true // killed before it had written it
	}
	return process.Ended(n)
}
