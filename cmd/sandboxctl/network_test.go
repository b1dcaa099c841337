// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/netns"
)

// namedNetns makes a network namespace in /run/netns that the test removes.
func namedNetns(t *testing.T, name string) *netns.Namespace {
	t.Helper()
	n, remove := makeNetns(t, name)
	t.Cleanup(remove)
	return n
}

// makeNetns makes a network namespace, and returns what removes its name.
func makeNetns(t *testing.T, name string) (*netns.Namespace, func()) {
	t.Helper()
	path := filepath.Join("/run/netns", name)
	must(t, os.MkdirAll("/run/netns", 0o755))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0)
	must(t, err)
	must(t, f.Close())
	remove := func() {
		if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path)); err != nil {
			t.Errorf("remove namespace: %v", err)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	must(t, err)
	defer own.Close()
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	must(t, errors.Join(err, unix.Setns(int(own.Fd()), unix.CLONE_NEWNET)))
	n, err := netns.Open(path)
	must(t, err)
	t.Cleanup(func() { n.Close() })
	return n, remove
}

// wireUp connects two namespaces: eth0 of the inner is 10.99.7.2, the outer has
// 10.99.7.1.
func wireUp(t *testing.T, outer, inner *netns.Namespace, innerPath string) {
	t.Helper()
	in := func(n *netns.Namespace, dev, cidr string) {
		must(t, n.Do(func() error {
			h, err := netlink.NewHandle()
			if err != nil {
				return err
			}
			defer h.Close()
			l, err := h.LinkByName(dev)
			if err != nil {
				return err
			}
			a, err := netlink.ParseAddr(cidr)
			if err != nil {
				return err
			}
			return errors.Join(h.AddrAdd(l, a), h.LinkSetUp(l))
		}))
	}
	far, err := os.Open(innerPath)
	must(t, err)
	defer far.Close()
	must(t, outer.Do(func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		return h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(far.Fd())})
	}))
	in(outer, "out", "10.99.7.1/24")
	in(inner, "eth0", "10.99.7.2/24")
}

// addresses are those of eth0 in a namespace.
func addresses(t *testing.T, n *netns.Namespace) string {
	t.Helper()
	cfg, err := n.Scrape()
	must(t, err)
	for _, l := range cfg.Links {
		if l.Name == "eth0" {
			return fmt.Sprint(l.Addresses)
		}
	}
	return ""
}

// A sandbox is on the network of the namespace it names, after a restart too,
// and gives it back when it has ended; a container of an OCI client likewise.
func TestNetns(t *testing.T) {
	requireHost(t)
	outerName, name := fmt.Sprintf("sbctl-%d-out", os.Getpid()), fmt.Sprintf("sbctl-%d-in", os.Getpid())
	outer := namedNetns(t, outerName)
	inner := namedNetns(t, name)
	wireUp(t, outer, inner, "/run/netns/"+name)
	var l net.Listener
	must(t, outer.Do(func() (err error) {
		l, err = net.Listen("tcp", "10.99.7.1:7777")
		return err
	}))
	defer l.Close()
	said := make(chan string)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(said)
				return
			}
			b, _ := io.ReadAll(c)
			said <- string(b)
			c.Close()
		}
	}()
	hear := func(want string) {
		t.Helper()
		select {
		case got := <-said:
			if got != want {
				t.Fatalf("heard %q, expected %q", got, want)
			}
		case <-time.After(patience(20 * time.Second)):
			t.Fatalf("heard nothing, expected %q", want)
		}
	}

	h := daemonHost(t)
	h.drop("talker", "  network: {mode: netns, netns: "+name+"}\n  terminationGracePeriod: 0s\n  backoff: {initial: 100ms}\n"+
		"  command: [/bin/busybox, sh, -c, 'busybox() { /bin/busybox \"$@\"; }; echo from the sandbox | busybox nc 10.99.7.1 7777; busybox sleep 1000']\n")
	hear("from the sandbox\n")
	if got := addresses(t, inner); strings.Contains(got, "10.99.7.2") {
		t.Errorf("the kernel answers for %s beside the sandbox", got)
	}
	// Its sentry is killed: the next one finds everything as it was.
	rec, _, err := h.store.Get("talker")
	must(t, err)
	p, err := process.Open(*rec.Sentry)
	must(t, err)
	must(t, errors.Join(p.Signal(unix.SIGKILL), p.Close()))
	hear("from the sandbox\n")
	h.clear()
	if got := addresses(t, inner); !strings.Contains(got, "10.99.7.2/24") {
		t.Errorf("eth0 has %q, expected 10.99.7.2/24 back", got)
	}

	// As a container.
	bundle := filepath.Join(h.work, "b")
	must(t, os.Mkdir(bundle, 0o755))
	must(t, os.WriteFile(filepath.Join(bundle, "config.json"), fmt.Appendf(nil, `{"ociVersion":"1.0.2","root":{"path":%q},
		"process":{"args":["/bin/busybox","sh","-c","echo from the container | /bin/busybox nc 10.99.7.1 7777"],"cwd":"/","user":{}},
		"linux":{"namespaces":[{"type":"network","path":"/run/netns/%s"}]}}`, h.work+"/rootfs", name), 0o644))
	run := func() (string, error) {
		cmd := exec.Command(filepath.Join(binDir, "sandboxctl"), "oci", "--root", filepath.Join(h.work, "oci"), "run", "--bundle", bundle, "c")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	done := make(chan error, 1)
	go func() {
		out, err := run()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		done <- err
	}()
	hear("from the container\n")
	must(t, <-done)
	if got := addresses(t, inner); !strings.Contains(got, "10.99.7.2/24") {
		t.Errorf("eth0 has %q, expected 10.99.7.2/24 back", got)
	}

	// What is not a network namespace, or the host's, is refused and nothing is
	// left.
	for path, want := range map[string]string{"/proc/self/ns/mnt": "not a network namespace", fmt.Sprintf("/proc/%d/ns/net", os.Getpid()): "the host's own"} {
		b, err := os.ReadFile(filepath.Join(bundle, "config.json"))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(bundle, "config.json"), []byte(strings.ReplaceAll(string(b), "/run/netns/"+name, path)), 0o644))
		if out, err := run(); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v: %s", path, err, out)
		}
		must(t, os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o644))
	}
}
