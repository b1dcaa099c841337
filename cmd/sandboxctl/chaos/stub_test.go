// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/wire"
)

// This test binary is a sentry too, where the faults of the daemon are tried:
// gVisor's listens to the system calls of its guests by a filter of the same
// kind as that which the daemon's children inherit, and the kernel allows one
// in a process. The gofers are real.

// The version that a stub says it has is that of the real gofer, or no sandbox would
// be started with both. It is kept in a file beside this binary: a program that is
// asked for its version is told nothing, not even by its environment.
func versionFile() (string, error) {
	self, err := os.Executable()
	return self + ".gvisor", err
}

func stubVersion() (string, error) {
	path, err := versionFile()
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(path)
	return string(b), err
}

// keepVersion writes that file, for the stubs that this process starts.
func keepVersion(ctx context.Context) error {
	gvisor, err := companion.Check(ctx, companion.GoferName, filepath.Join(binDir, companion.GoferName))
	if err != nil {
		return err
	}
	path, err := versionFile()
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(gvisor), 0o600)
}

// stubWaits waits for what it is to become, as a sentry does.
func stubWaits() int {
	wire.BeginWait()
	args, accept, err := wire.Wait(os.Args)
	if err == nil {
		err = accept()
	}
	if err != nil {
		return wire.ExitGateClosed
	}
	os.Args = args
	return stubSentry()
}

// stubSentry follows the launch protocol and runs nothing.
func stubSentry() int {
	if len(os.Args) == 2 && os.Args[1] == "version" {
		gvisor, err := stubVersion()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(wire.Handshake(companion.SentryName, wire.Protocol, gvisor))
		return 0
	}
	fd := map[string]int{}
	for _, a := range os.Args[1:] {
		k, v, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		// Descriptors for the guest are told as HOST:GUEST.
		host, _, _ := strings.Cut(v, ":")
		if n, err := strconv.Atoi(host); err == nil {
			fd[k] = n
		}
	}
	started := sync.OnceFunc(func() {
		// The report that an init process makes.
		if report, ok := fd["pass-fd"]; ok {
			_, _ = unix.Write(report, []byte{6})
			_ = unix.Close(report)
		}
	})
	var b [1]byte
	if n, err := unix.Read(fd[wire.FlagGateFD], b[:]); err != nil || n != 1 {
		return wire.ExitGateClosed
	}
	if err := unix.Listen(fd["controller-fd"], 8); err != nil {
		return wire.ExitBootFailed
	}
	if _, err := unix.Write(fd["start-sync-fd"], []byte{1}); err != nil {
		return wire.ExitBootFailed
	}
	l, err := net.FileListener(os.NewFile(uintptr(fd["controller-fd"]), "control"))
	for err == nil {
		var c net.Conn
		if c, err = l.Accept(); err == nil {
			go stubServe(c, started)
		}
	}
	return wire.ExitBootFailed
}

// stubServe agrees to everything.
func stubServe(c net.Conn, started func()) {
	defer c.Close()
	dec := json.NewDecoder(c)
	for {
		var req struct{ Method string }
		if dec.Decode(&req) != nil {
			return
		}
		if req.Method == wire.MethodStartRoot {
			started()
		}
		if _, err := io.WriteString(c, `{"success":true,"err":"","result":null}`); err != nil {
			return
		}
	}
}
