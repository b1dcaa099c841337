// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostNetwork is what of this host's network a measurement could change.
func hostNetwork(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, path := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		text, err := os.ReadFile("/proc/sys/net/" + path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		out.Write(text)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		name := l.Attrs().Name
		for _, p := range []string{"lan", "sb", "cni", "podman", "veth"} {
			if strings.HasPrefix(name, p) {
				out.WriteString("link " + name + "\n")
			}
		}
	}
	tables, err := exec.Command("nft", "list", "tables").Output()
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(tables)) {
		if strings.Contains(l, "sandboxctl") {
			out.WriteString(l)
		}
	}
	return out.String()
}

// static has the bench be a program that can run in a sandbox. The race detector needs cgo,
// and the bench would inherit that.
const static = "CGO_ENABLED=0"

// Everything is measured on networks of the run, and nothing of this host's has changed.
func TestNetworks(t *testing.T) {
	bin, out := programs(t), t.TempDir()
	before := hostNetwork(t)
	cmd := exec.Command("go", "run", ".", "-bin", bin, "-out", out, "-only", "networks", "-tree", smallTree(t), "-peers=false", "-rounds", "1", "-fleet", "2")
	cmd.Env = append(os.Environ(), static)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	table, err := os.ReadFile(filepath.Join(out, "table.md"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(table), "NaN") {
		t.Errorf("%s", table)
	}
	for _, row := range []string{
		"first output", "first answer", "is left", "adds to a start |", "adds to a removal", "adds to a start among 2",
		"requests of HTTP", "of these requests", "connections with a request", "of these connections", "MiB from the sandbox", "to the sandbox", "about its own name",
	} {
		if line := lineWith(string(table), row); !strings.Contains(line, " ms |") {
			t.Errorf("%q is not measured: %q", row, line)
		}
	}
	if line := lineWith(string(table), "redis-benchmark -t get"); !strings.Contains(line, "there is no tree with usr/bin/redis-server") {
		t.Errorf("%s", line)
	}
	if after := hostNetwork(t); after != before {
		t.Errorf("the network of this host was\n%s\nand is\n%s", before, after)
	}
	noGroup(t)
}

// What a run starts on its host is in namespaces of the run, also in mounts of its own.
func TestLAN(t *testing.T) {
	programs(t)
	l, err := newLAN(true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	for what, c := range map[string]struct {
		do   func(func() error) error
		want string
	}{
		"host":          {l.do, "192.0.2.1"},
		"other machine": {l.far.Do, "192.0.2.2"},
	} {
		var out []byte
		if err := c.do(func() (err error) {
			out, err = exec.Command("ip", "-4", "-o", "address", "show", "lan").CombinedOutput()
			return err
		}); err != nil || !bytes.Contains(out, []byte(c.want+"/24")) {
			t.Errorf("%s: %v %s", what, err, out)
		}
	}
	var mounts []byte
	if err := l.do(func() (err error) {
		mounts, err = exec.Command("cat", "/proc/self/mountinfo").Output()
		return err
	}); err != nil || !bytes.Contains(mounts, []byte("/var/lib/cni")) {
		t.Errorf("%v %s", err, mounts)
	}
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(own, []byte(" /var/lib/cni ")) {
		t.Errorf("mounted in this namespace: %v", err)
	}
}

// The client counts what a server has answered, and fails where it has not.
func TestLoad(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go each(l, takeAll)
	addr := l.Addr().String()
	if took, err := send(addr, 3<<20); err != nil || took <= 0 {
		t.Errorf("%v %v", took, err)
	}
	source, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	go each(source, giveAll)
	if took, err := receive(source.Addr().String(), 3<<20); err != nil || took <= 0 {
		t.Errorf("%v %v", took, err)
	}
	if err := connection(addr, 200*time.Millisecond); err == nil {
		t.Error("a sink answers HTTP")
	}
	n := 0
	done, err := workers(1, 100, func() (func() error, error) { return func() error { n++; return nil }, nil })
	if err != nil || n != 100 || done.Took <= 0 {
		t.Errorf("%d: %+v %v", n, done, err)
	}
	if _, err := workers(2, 10, func() (func() error, error) { return func() error { return unix.EIO }, nil }); !errors.Is(err, unix.EIO) {
		t.Errorf("%v", err)
	}
	for _, args := range [][]string{nil, {"serve", "x"}, {"requests"}} {
		if err := runLoad(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
