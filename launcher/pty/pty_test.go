// SPDX-License-Identifier: Apache-2.0

package pty

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	master, slave, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	for _, f := range []*os.File{master, slave} {
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		err = raw.Control(func(fd uintptr) {
			if _, err := unix.IoctlGetTermios(int(fd), unix.TCGETS); err != nil {
				t.Errorf("%s is no terminal: %v", f.Name(), err)
			}
			// Another child of this process would keep it open.
			if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("%s is inherited: %#x %v", f.Name(), flags, err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := master.WriteString("typed\n"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	if n, err := slave.Read(b); err != nil || string(b[:n]) != "typed\n" {
		t.Errorf("%q %v", b[:n], err)
	}
	// Its echo. A read that waits ends when the master is closed.
	if _, err := master.Read(b); err != nil {
		t.Error(err)
	}
	ended := make(chan error)
	go func() {
		_, err := master.Read(make([]byte, 1))
		ended <- err
	}()
	if err := master.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("a read of a closed terminal: %v", err)
	}
}

// Two terminals are two, whatever their numbers are.
func TestOpenTwice(t *testing.T) {
	t.Parallel()
	var masters, slaves [2]*os.File
	for i := range masters {
		var err error
		if masters[i], slaves[i], err = Open(); err != nil {
			t.Fatal(err)
		}
		defer masters[i].Close()
		defer slaves[i].Close()
	}
	for i, text := range []string{"a\n", "b\n"} {
		if _, err := masters[i].WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"a\n", "b\n"} {
		b := make([]byte, 8)
		if n, err := slaves[i].Read(b); err != nil || string(b[:n]) != want {
			t.Errorf("%q %v, expected %q", b[:n], err, want)
		}
	}
}
