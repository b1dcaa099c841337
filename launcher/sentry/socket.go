// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
)

// ControlSocket is the file in the directory of a sandbox where the sentry of a live
// one listens.
const ControlSocket = "control.sock"

// BindControl binds the control socket in the directory of descriptor dir, in place of
// one of an earlier attempt. It listens in the sentry, which may be
// in another network namespace: a socket on a path is reached all the same.
func BindControl(dir int) (*os.File, error) {
	err := crashpoint.Do(crashpoint.ControlUnlink, func() error { return unix.Unlinkat(dir, ControlSocket, 0) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove old control socket: %w", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("create control socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), ControlSocket)
	// By descriptor, so that the length of the state path does not matter
	// (sun_path holds 108 bytes). The directory is 0700.
	addr := &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(dir) + "/" + ControlSocket}
	err = crashpoint.Do(crashpoint.ControlBind, func() error { return unix.Bind(fd, addr) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind control socket: %w", err), f.Close())
	}
	return f, nil
}
