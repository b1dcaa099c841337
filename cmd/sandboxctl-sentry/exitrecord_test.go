// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
)

// hostileEnv names the file that a child of the test attacks.
const hostileEnv = "SANDBOXCTL_TEST_EXIT_RECORD"

func TestMain(m *testing.M) {
	if path := os.Getenv(hostileEnv); path != "" {
		if err := fillExitRecord(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if path := os.Getenv(diskFileEnv); path != "" {
		if err := fillDiskFile(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fillExitRecord is a sentry that was taken over: it tries every system call by
// which gVisor's filter would let it make the exit record grow, also with a
// register whose upper half the kernel does not look at.
func fillExitRecord(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	other, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	fd := f.Fd()
	if err := confineExitRecord(int(fd)); err != nil {
		return err
	}
	big := make([]byte, actual.MaxExit+1)
	buf := uintptr(unsafe.Pointer(&big[0]))
	iov := unix.Iovec{Base: &big[0], Len: uint64(len(big))}
	vec := uintptr(unsafe.Pointer(&iov))
	var errs []error
	for _, fd := range []uintptr{fd, fd | 1<<32} {
		for name, c := range map[string][7]uintptr{
			"write":          {unix.SYS_WRITE, fd, buf, 1},
			"writev":         {unix.SYS_WRITEV, fd, vec, 1},
			"pwritev":        {unix.SYS_PWRITEV, fd, vec, 1, 0},
			"pwritev2":       {unix.SYS_PWRITEV2, fd, vec, 1, 0, 0, unix.RWF_APPEND},
			"large pwrite":   {unix.SYS_PWRITE64, fd, buf, actual.MaxExit + 1, 0},
			"far pwrite":     {unix.SYS_PWRITE64, fd, buf, 1, actual.MaxExit},
			"ftruncate":      {unix.SYS_FTRUNCATE, fd, 1 << 40},
			"fallocate":      {unix.SYS_FALLOCATE, fd, 0, 0, 1 << 20},
			"dup":            {unix.SYS_DUP, fd},
			"dup3":           {unix.SYS_DUP3, fd, 100, unix.O_CLOEXEC},
			"append":         {unix.SYS_FCNTL, fd, unix.F_SETFL, unix.O_APPEND},
			"fcntl dup":      {unix.SYS_FCNTL, fd, unix.F_DUPFD, 0},
			"mode":           {unix.SYS_FCHMOD, fd, 0o4755},
			"sendfile":       {unix.SYS_SENDFILE, fd, other.Fd(), 0, 1 << 20},
			"copy range":     {unix.SYS_COPY_FILE_RANGE, other.Fd(), 0, fd, 0, 1 << 20, 0},
			"splice":         {unix.SYS_SPLICE, other.Fd(), 0, fd, 0, 1 << 20, unix.SPLICE_F_NONBLOCK},
			"reflink":        {unix.SYS_IOCTL, fd, unix.FICLONE, other.Fd()},
			"shared mapping": {unix.SYS_MMAP, 0, 4096, unix.PROT_WRITE, unix.MAP_SHARED, fd, 0},
		} {
			if _, _, errno := unix.Syscall6(c[0], c[1], c[2], c[3], c[4], c[5], c[6]); errno != unix.EPERM && name != "shared mapping" || errno == 0 {
				errs = append(errs, fmt.Errorf("%s of %#x: %v", name, fd, errno))
			}
		}
	}
	// What it is for works, more than once, and other files are not touched.
	for range 3 {
		if _, err := unix.Pwrite(int(fd), big[:actual.MaxExit], 0); err != nil {
			errs = append(errs, fmt.Errorf("pwrite: %w", err))
		}
	}
	if _, err := fmt.Fprintln(os.Stdout, "others work"); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// A sentry that was taken over can't fill the disk of the state directory
// through the one file of the host that it may write.
func TestExitRecordConfined(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), actual.ExitFile)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), hostileEnv+"="+path)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("others work")) {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != actual.MaxExit || info.Mode().Perm() != 0o600 {
		t.Errorf("%d bytes, mode %v; expected %d and 0600", info.Size(), info.Mode(), actual.MaxExit)
	}
}
