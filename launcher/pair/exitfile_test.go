// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Memory filesystems, on which the state of OCI containers is, take any signal for
// a reason to give up an allocation, and Go sends its threads signals all the time.
func TestExitRecordInterrupted(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Fatalf("/dev/shm is no filesystem in memory: %#x, %v", st.Type, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	interrupt(t, 20*time.Microsecond)
	for began := time.Now(); time.Since(began) < time.Second; {
		f, err := openExit(int(d.Fd()), "exit")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

// interrupt has the kernel send this thread, until the end of the test, the signal
// by which Go's scheduler interrupts threads.
func interrupt(t *testing.T, every time.Duration) {
	t.Helper()
	const threadID = 4 // SIGEV_THREAD_ID
	event := struct {
		value              uint64
		signo, notify, tid int32
		reserved           [11]int32
	}{signo: int32(unix.SIGURG), notify: threadID, tid: int32(unix.Gettid())}
	var timer int32
	if _, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&timer))); errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { _, _, _ = unix.Syscall(unix.SYS_TIMER_DELETE, uintptr(timer), 0, 0) })
	interval := unix.NsecToTimespec(every.Nanoseconds())
	spec := [2]unix.Timespec{interval, interval}
	if _, _, errno := unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(timer), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
}
