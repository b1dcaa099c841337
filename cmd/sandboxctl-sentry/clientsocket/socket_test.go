// SPDX-License-Identifier: Apache-2.0

package clientsocket

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T, stop <-chan struct{}) (*Socket, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(fds[0], stop)
	if err != nil {
		t.Fatal(err)
	}
	return s, fds[1]
}

func wait(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatal(what)
	}
}

// Both directions carry more than a socket holds, and end one by one.
func TestSocket(t *testing.T) {
	t.Parallel()
	s, client := pair(t, nil)
	defer s.Close()
	defer unix.Close(client)
	sent := bytes.Repeat([]byte("0123456789"), 300_000)
	echoed := make(chan error, 1)
	go func() {
		_, err := io.Copy(s, struct{ io.Reader }{s})
		echoed <- errors.Join(err, s.EndWrite())
	}()
	go func() {
		for b := sent; len(b) > 0; {
			n, err := unix.Write(client, b)
			if err != nil {
				return
			}
			b = b[n:]
		}
		_ = unix.Shutdown(client, unix.SHUT_WR)
	}()
	var got []byte
	for buf := make([]byte, 64<<10); ; {
		n, err := unix.Read(client, buf)
		if err != nil || n == 0 {
			break
		}
		got = append(got, buf[:n]...)
	}
	if err := <-echoed; err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes back, %v", len(got), err)
	}
}

// A client that ends is noticed by those who wait for nothing, and who writes gets an error.
func TestSocketHungUp(t *testing.T) {
	t.Parallel()
	s, client := pair(t, nil)
	defer s.Close()
	select {
	case <-s.HungUp():
		t.Fatal("hung up at once")
	default:
	}
	unix.Close(client)
	wait(t, s.HungUp(), "the end of a client is not noticed")
	if _, err := s.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("write: %v", err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read: %v", err)
	}
}

// Those who wait return when they are told to.
func TestSocketStopped(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	s, client := pair(t, stop)
	defer s.Close()
	defer unix.Close(client)
	errs := make(chan error, 2)
	go func() {
		_, err := s.Read(make([]byte, 1))
		errs <- err
	}()
	go func() {
		_, err := s.Write(make([]byte, 10<<20))
		errs <- err
	}()
	time.Sleep(10 * time.Millisecond) // either may come first
	close(stop)
	for range 2 {
		if err := <-errs; !errors.Is(err, ErrStopped) {
			t.Errorf("%v", err)
		}
	}
}
