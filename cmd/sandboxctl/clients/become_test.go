// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"syscall"
	"unsafe"
)

// become changes the credentials of the calling thread alone: the functions of package syscall
// change those of all threads.
func become(uid, gid int, groups []uint32) error {
	var list unsafe.Pointer
	if len(groups) > 0 {
		list = unsafe.Pointer(&groups[0])
	}
	for _, call := range []struct{ nr, a, b, c uintptr }{
		{syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(list), 0},
		{syscall.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)},
		{syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
	} {
		if _, _, errno := syscall.RawSyscall(call.nr, call.a, call.b, call.c); errno != 0 {
			return errno
		}
	}
	return nil
}
