// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

// gate is a socket that keeps messages apart, and its other end.
func gate(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	return ours, theirs
}

// A claim arrives as it was sent, whatever is in it; what is too long is not sent.
func TestClaim(t *testing.T) {
	t.Parallel()
	ours, theirs := gate(t)
	want := Claim{Args: []string{"sandboxctl-sentry", "boot", "web"}, Hostname: "box", Domainname: "d", Environment: []string{"A=b", "C=\x01\"ü"}}
	msg, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := SendClaim(ours, msg); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, MaxClaim)
	n, err := theirs.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeClaim(b[:n])
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("%+v: %v", got, err)
	}
	for _, long := range []Claim{
		{Args: []string{strings.Repeat("a", waitingRoom)}},
		{Args: []string{"a"}, Environment: []string{"A=" + strings.Repeat("b", MaxClaim)}},
	} {
		if _, err := long.Encode(); err == nil {
			t.Error("a claim that is too long was encoded")
		}
	}
	for _, bad := range []string{"", "{", `{"Args":[]}`} {
		if c, err := DecodeClaim([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, c)
		}
	}
}

// The longest claim fits into the socket.
func TestLongestClaim(t *testing.T) {
	t.Parallel()
	ours, theirs := gate(t)
	if err := SendClaim(ours, make([]byte, MaxClaim)); err != nil {
		t.Fatal(err)
	}
	if n, err := theirs.Read(make([]byte, 2*MaxClaim)); n != MaxClaim {
		t.Errorf("%d bytes: %v", n, err)
	}
}

// What a warm sentry says of its kernel is JSON, and has a bound.
func TestConf(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		says string
		ok   bool
	}{"conf": {`{"A":1}`, true}, "no JSON": {"x", false}, "too long": {`"` + strings.Repeat("a", MaxConf) + `"`, false}} {
		ours, theirs := gate(t)
		if _, err := theirs.WriteString(c.says); err != nil {
			t.Fatal(err)
		}
		got, err := ReadConf(ours)
		if (err == nil) != c.ok || c.ok && string(got) != c.says {
			t.Errorf("%s: %d bytes, %v", what, len(got), err)
		}
	}
	ours, theirs := gate(t)
	if _, err := ReadConf(ours); err == nil {
		t.Error("nothing was said")
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadConf(ours); err == nil {
		t.Error("it is gone")
	}
}

func TestMountConfs(t *testing.T) {
	t.Parallel()
	got, err := MountConfs("lisafs:memory:size=100,lisafs:none,erofs:memory")
	if want := []MountConf{{1, 1, "100"}, {1, 0, ""}, {2, 1, ""}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v: %v", got, err)
	}
	for _, bad := range []string{"", "lisafs", "lisafs:anon:size=1", "none:anon", "lisafs:none:100", "a:b", "lisafs:none:size=1:x"} {
		if got, err := MountConfs(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}
