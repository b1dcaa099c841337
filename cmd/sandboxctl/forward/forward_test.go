// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/cmd/sandboxctl/exit"
)

func TestParsePorts(t *testing.T) {
	t.Parallel()
	got, err := parsePorts([]string{"80", "8080:81", ":82", "0:83"})
	if want := []pair{{80, 80}, {8080, 81}, {0, 82}, {0, 83}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, bad := range [][]string{
		{""},
		{"0"},
		{"x"},
		{"65536"},
		{"-1"},
		{"80:"},
		{":"},
		{"80:0"},
		{"65536:80"},
		{"1:2:3"},
		{"80", "80"},
		{" 80"},
		{"80/udp"},
		{"http"},
		slices.Repeat([]string{":80"}, mostPorts+1),
	} {
		var e *exit.Error
		if _, err := parsePorts(bad); !errors.As(err, &e) || e.Code != exit.Usage {
			t.Errorf("%q: %v", bad[0], err)
		}
	}
}

func TestParseAddresses(t *testing.T) {
	t.Parallel()
	got, err := parseAddresses([]string{"localhost", "192.0.2.1"})
	if err != nil || len(got) != 3 || got[1].must || !got[2].must {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range [][]string{nil, {""}, {"example.org"}, {"1.2.3.4:5"}, {"127.0.0.1", "localhost"}} {
		if _, err := parseAddresses(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// One port is chosen for all addresses, and one that is in use is told with advice.
func TestListen(t *testing.T) {
	t.Parallel()
	addrs, err := parseAddresses([]string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	ls, err := listen(t.Context(), addrs, pair{to: 80})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(ls)
	for _, l := range ls {
		if portOf(l) != portOf(ls[0]) {
			t.Errorf("%s beside %s", l.Addr(), ls[0].Addr())
		}
	}
	_, err = listen(t.Context(), addrs[:1], pair{portOf(ls[0]), 80})
	if err == nil || !strings.Contains(err.Error(), "address already in use; name another one") {
		t.Errorf("in use: %v", err)
	}
}

// connected returns the two ends of a TCP connection.
func connected(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = d.Close()
	})
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// Each direction ends by itself.
func TestRelay(t *testing.T) {
	t.Parallel()
	client, front := connected(t)
	back, guest := connected(t)
	done := make(chan struct{})
	go func() {
		relay(front, back, time.Minute)
		close(done)
	}()
	sent := bytes.Repeat([]byte("question"), 100_000)
	go func() {
		_, _ = client.Write(sent)
		_ = client.CloseWrite()
	}()
	if got, err := io.ReadAll(guest); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("the guest read %d bytes, %v", len(got), err)
	}
	go func() {
		_, _ = guest.Write(sent)
		_ = guest.CloseWrite()
	}()
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("the client read %d bytes, %v", len(got), err)
	}
	<-done
}

// A guest that says nothing and never closes does not keep a connection whose client has
// ended; one that has something to say keeps it.
func TestRelaySilence(t *testing.T) {
	t.Parallel()
	client, front := connected(t)
	back, guest := connected(t)
	done := make(chan struct{})
	const silence = 300 * time.Millisecond
	go func() {
		relay(front, back, silence)
		close(done)
	}()
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		time.Sleep(silence / 2)
		if _, err := guest.Write([]byte("x")); err != nil {
			t.Fatalf("cut off while it speaks: %v", err)
		}
	}
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("a silent guest keeps the connection")
	}
}

// A client that resets its connection ends it for the guest too.
func TestRelayReset(t *testing.T) {
	t.Parallel()
	client, front := connected(t)
	back, guest := connected(t)
	done := make(chan struct{})
	go func() {
		relay(front, back, time.Second)
		close(done)
	}()
	if err := errors.Join(client.SetLinger(0), client.Close()); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, guest)
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the connection is still there")
	}
}

func TestNotesBounded(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	n := &notes{w: &b}
	for range 1000 {
		n.printf("no\x1b[2J")
	}
	if got := strings.Count(b.String(), "\n"); got > 5 || strings.Contains(b.String(), "\x1b") {
		t.Errorf("%d lines: %q", got, b.String())
	}
}
