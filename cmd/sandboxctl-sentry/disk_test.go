// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl-sentry/filters"
	"sandboxctl.dev/launcher/wire"
)

// diskFileEnv names the file that a child of the test attacks.
const diskFileEnv = "SANDBOXCTL_TEST_DISK_FILE"

// fillDiskFile is a sentry that was taken over: it tries every system call by which gVisor's
// filter would let it make a file longer than its limit, and then what gVisor does with one.
func fillDiskFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	other, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	fd := f.Fd()
	confined := wire.DiskFile{FD: int(fd), Size: 1 << 20}
	most := uintptr(confined.Limit())
	if err := confineDiskFiles([]wire.DiskFile{{FD: 1000, Size: 5}, confined}); err != nil {
		return err
	}
	page := make([]byte, 4096)
	buf := uintptr(unsafe.Pointer(&page[0]))
	iov := unix.Iovec{Base: &page[0], Len: uint64(len(page))}
	vec := uintptr(unsafe.Pointer(&iov))
	var errs []error
	for _, fd := range []uintptr{fd, fd | 1<<32} {
		for name, c := range map[string][7]uintptr{
			"write":           {unix.SYS_WRITE, fd, buf, 1},
			"writev":          {unix.SYS_WRITEV, fd, vec, 1},
			"far pwrite":      {unix.SYS_PWRITE64, fd, buf, 1, most + 1},
			"negative pwrite": {unix.SYS_PWRITE64, fd, buf, 1, ^uintptr(0)},
			"far pwritev":     {unix.SYS_PWRITEV, fd, vec, 1, most + 1},
			"far pwritev2":    {unix.SYS_PWRITEV2, fd, vec, 1, most + 1, 0, 0},
			"at the position": {unix.SYS_PWRITEV2, fd, vec, 1, ^uintptr(0), 0, 0},
			"appended":        {unix.SYS_PWRITEV2, fd, vec, 1, 0, 0, unix.RWF_APPEND},
			"ftruncate":       {unix.SYS_FTRUNCATE, fd, most + 1},
			"far fallocate":   {unix.SYS_FALLOCATE, fd, 0, most + 1, 4096},
			"large fallocate": {unix.SYS_FALLOCATE, fd, unix.FALLOC_FL_KEEP_SIZE, 0, most + 1},
			"long fallocate":  {unix.SYS_FALLOCATE, fd, 0, most, uintptr(confined.Size) + 1},
			"long, size kept": {unix.SYS_FALLOCATE, fd, unix.FALLOC_FL_KEEP_SIZE, most, uintptr(confined.Size) + 1},
			"odd mode":        {unix.SYS_FALLOCATE, fd, 1 << 32, most, uintptr(confined.Size) + 1},
			"dup":             {unix.SYS_DUP, fd},
			"dup3":            {unix.SYS_DUP3, fd, 100, unix.O_CLOEXEC},
			"append":          {unix.SYS_FCNTL, fd, unix.F_SETFL, unix.O_APPEND},
			"fcntl dup":       {unix.SYS_FCNTL, fd, unix.F_DUPFD, 0},
			"sendfile":        {unix.SYS_SENDFILE, fd, other.Fd(), 0, 1 << 20},
			"copy range":      {unix.SYS_COPY_FILE_RANGE, other.Fd(), 0, fd, 0, 1 << 20, 0},
			"splice":          {unix.SYS_SPLICE, other.Fd(), 0, fd, 0, 1 << 20, unix.SPLICE_F_NONBLOCK},
			"reflink":         {unix.SYS_IOCTL, fd, unix.FICLONE, other.Fd()},
		} {
			if _, _, errno := unix.Syscall6(c[0], c[1], c[2], c[3], c[4], c[5], c[6]); errno != unix.EPERM {
				errs = append(errs, fmt.Errorf("%s of %#x: %v", name, fd, errno))
			}
		}
		for _, c := range [][7]uintptr{
			{unix.SYS_FTRUNCATE, fd, most},
			{unix.SYS_PWRITE64, fd, buf, 4096, 1 << 30},
			{unix.SYS_PWRITEV, fd, vec, 1, 4096, 0},
			{unix.SYS_PWRITEV2, fd, vec, 1, most - 4096, 0, 0},
			{unix.SYS_PREAD64, fd, buf, 4096, 0},
			{unix.SYS_FALLOCATE, fd, 0, 1 << 30, uintptr(confined.Size)},
			{unix.SYS_FALLOCATE, fd, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, 0, most},
		} {
			if _, _, errno := unix.Syscall6(c[0], c[1], c[2], c[3], c[4], c[5], c[6]); errno != 0 {
				errs = append(errs, fmt.Errorf("%d of %#x: %v", c[0], fd, errno))
			}
		}
		at, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, 1<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED, fd, 1<<30)
		if errno != 0 {
			errs = append(errs, fmt.Errorf("mmap of %#x: %v", fd, errno))
		} else if _, _, errno := unix.Syscall(unix.SYS_MUNMAP, at, 1<<30, 0); errno != 0 {
			errs = append(errs, errno)
		}
	}
	runtime.KeepAlive(f) // nothing else keeps it open
	if _, err := fmt.Fprintln(os.Stdout, "others work"); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// A sentry that was taken over can't fill the disk of the state directory through the files
// in which it keeps what its sandbox writes.
func TestDiskFilesConfined(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), diskFileEnv+"="+path)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("others work")) {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(path)
	if most := (wire.DiskFile{Size: 1 << 20}).Limit(); err != nil || info.Size() != most {
		t.Errorf("%v %v, expected %d bytes", info, err, most)
	}
}

// The filter of as many files as a sandbox can have is one that the kernel takes, and no
// size is too large for it.
func TestDiskFileRules(t *testing.T) {
	t.Parallel()
	var files []wire.DiskFile
	for i := range 16 {
		files = append(files, wire.DiskFile{FD: 20 + i, Size: math.MaxInt64 >> i})
	}
	program, _, err := filters.DiskFileRules(files).Build()
	if err != nil || len(program) > 4096 {
		t.Errorf("%d instructions: %v", len(program), err)
	}
	for _, f := range files {
		if l := f.Limit(); l <= 0 || l%(1<<30) != 0 {
			t.Errorf("%d may become %d long", f.Size, l)
		}
	}
}
