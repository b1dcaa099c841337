// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/launcher/netns"
)

// listener hears what is said to 10.99.7.1:7777 in a namespace.
func listener(t *testing.T, outer *netns.Namespace) (hear func(want string)) {
	t.Helper()
	var l net.Listener
	must(t, outer.Do(func() (err error) {
		l, err = net.Listen("tcp", "10.99.7.1:7777")
		return err
	}))
	t.Cleanup(func() { l.Close() })
	said := make(chan string, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			said <- string(b)
			c.Close()
		}
	}()
	return func(want string) {
		t.Helper()
		select {
		case got := <-said:
			if got != want {
				t.Fatalf("heard %q, expected %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("heard nothing, expected %q", want)
		}
	}
}

// A sandbox that needs a network namespace waits for it: that another sandbox which has it
// ends, that it is made, that it gets an interface. Nobody is left without network.
func TestNetnsMoves(t *testing.T) {
	requireHost(t)
	name := func(what string) string { return fmt.Sprintf("sbctl-%d-%s", os.Getpid(), what) }
	wired := func(inner *netns.Namespace, of string) func(string) {
		outer := namedNetns(t, name("out"+of))
		wireUp(t, outer, inner, "/run/netns/"+name(strings.TrimSuffix(of, "'")))
		return listener(t, outer)
	}
	hear1 := wired(namedNetns(t, name("1")), "1")
	hear2 := wired(namedNetns(t, name("2")), "2")

	h := daemonHost(t)
	// It takes no notice of its stop signal, and says who it is when it can.
	put := func(file, sandbox, ns string) {
		t.Helper()
		text := fmt.Sprintf(`apiVersion: sandboxctl.dev/v1alpha1
kind: Sandbox
metadata: {name: %[1]s}
spec:
  root: {dir: %[2]s/rootfs}
  network: {mode: netns, netns: %[3]s}
  terminationGracePeriod: 2s
  command: [/bin/busybox, sh, -c, "trap '' TERM; while ! echo %[1]s | /bin/busybox nc 10.99.7.1 7777; do /bin/busybox sleep 0.1; done; while :; do /bin/busybox sleep 1000; done"]
`, sandbox, h.work, ns)
		tmp := filepath.Join(h.work, "tmp")
		must(t, os.WriteFile(tmp, []byte(text), 0o644))
		must(t, os.Rename(tmp, filepath.Join(h.manifests, file)))
	}
	shows := func(sandbox, want string) {
		t.Helper()
		h.until(sandbox+" shows "+want, func() bool {
			out, err := h.command("get", sandbox, "-o", "json").Output()
			return err == nil && strings.Contains(string(out), want)
		})
	}

	// Renamed in place: the old one stops, the new one comes.
	put("a.yaml", "old", name("1"))
	hear1("old\n")
	put("a.yaml", "new", name("1"))
	shows("new", "network namespace "+name("1")+" is used by old")
	hear1("new\n")

	// Two swap their namespaces, which is to swap their names.
	put("b.yaml", "other", name("2"))
	hear2("other\n")
	put("a.yaml", "other", name("1"))
	put("b.yaml", "new", name("2"))
	hear1("other\n")
	hear2("new\n")

	// One that is made later than its sandbox, and gets its interface later still.
	put("c.yaml", "late", name("3"))
	shows("late", "network namespace "+name("3")+" does not exist")
	inner, remove := makeNetns(t, name("3"))
	shows("late", "no interface of network namespace "+name("3")+" is up and has an address")
	hear3 := wired(inner, "3")
	hear3("late\n")
	rec, _, err := h.store.Get("late")
	must(t, err)
	if rec.Attempt != 1 || rec.App().Failures != 0 {
		t.Errorf("it was started in vain: %+v", rec)
	}

	// One that is removed and made anew.
	remove()
	h.until("a warning in get", func() bool {
		out, err := h.command("get", "late").Output()
		return err == nil && strings.Contains(string(out), "warning: NetworkGone")
	})
	wired(namedNetns(t, name("3")), "3'")("late\n")
}
