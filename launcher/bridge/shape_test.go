// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/links"
	"sandboxctl.dev/launcher/netns"
)

// rate is that of the queue of a link, in bits in a second; 0 if it has none of ours.
func rate(t *testing.T, do func(func() error) error, name string) (bits uint64) {
	t.Helper()
	if err := do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		list, err := netlink.QdiscList(l)
		for _, q := range list {
			if tbf, ok := q.(*netlink.Tbf); ok {
				bits = tbf.Rate * 8
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return bits
}

// Bandwidth follows the manifest of a sandbox that runs, also with the next daemon, is put back
// where somebody has removed it, and what is known of runs that are over is forgotten.
func TestBandwidth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.mustChoose("web", networks.Network{})
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	id, err := process.Identify(fd, cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	rec.Phase, rec.Spec, rec.Sentry = actual.PhaseRunning, []byte(`{"spec":{"network":{"mode":"bridge"}}}`), &id
	if err := w.k.store.Put(rec); err != nil {
		t.Fatal(err)
	}
	ns, err := process.Through(id, netns.Of)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	link := Links(rec)[0]
	in := func(f func() error) {
		t.Helper()
		if err := w.ns.Do(f); err != nil {
			t.Fatal(err)
		}
	}
	in(func() error { return links.Attach(ns, link) })
	round := func(look bool, b *networks.Bandwidth) {
		t.Helper()
		w.k.mu.Lock()
		w.k.wanted = map[string]*networks.Network{"web": {Mode: networks.Bridge, Join: []string{networks.DefaultName}, Bandwidth: b}}
		w.k.mu.Unlock()
		in(w.k.rules.Do)
		in(func() error { w.k.reshape(look); return nil })
	}
	expect := func(egress, ingress uint64) {
		t.Helper()
		if e, i := rate(t, ns.Do, link.Guest), rate(t, w.ns.Do, link.Link); e != egress || i != ingress {
			t.Errorf("egress %d and ingress %d, expected %d and %d", e, i, egress, ingress)
		}
	}
	round(true, nil)
	expect(0, 0)
	round(false, &networks.Bandwidth{Egress: 1e6, Ingress: 2e6})
	expect(1e6, 2e6)
	next := func() {
		t.Helper()
		k, err := New(w.k.store, lookEvery, w.k.log)
		if err != nil {
			t.Fatal(err)
		}
		w.k = k
	}
	next()
	round(true, &networks.Bandwidth{Egress: 1e6})
	expect(1e6, 0)
	in(func() error {
		return ns.Do(func() error {
			l, err := netlink.LinkByName(link.Guest)
			if err != nil {
				return err
			}
			return netlink.QdiscDel(&netlink.Tbf{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT}})
		})
	})
	round(false, &networks.Bandwidth{Egress: 1e6})
	expect(0, 0) // nothing says that it was removed
	round(true, &networks.Bandwidth{Egress: 1e6})
	expect(1e6, 0)
	next()
	round(true, nil) // while no daemon ran the manifest has changed
	expect(0, 0)
	if n := len(w.k.bandwidth); n != 1 {
		t.Errorf("%d runs are known", n)
	}
	rec.Phase, rec.Sentry = actual.PhaseStopped, nil
	if err := w.k.store.Put(rec); err != nil {
		t.Fatal(err)
	}
	round(true, nil)
	if n := len(w.k.bandwidth); n != 0 {
		t.Errorf("%d runs are known, and none is left", n)
	}
}

// What can't be limited is told with the run that lacks it.
func TestUnlimited(t *testing.T) {
	t.Parallel()
	k := &Keeper{lacking: make(chan struct{}, 1), runs: map[string]run{"web": {"u", 2}, "db": {"v", 1}}, bandwidth: map[run]shaped{{"u", 2}: {err: "no tbf"}, {"v", 1}: {}}}
	k.find()
	if l := k.Lacks(); len(l) != 1 || l["web"].Unlimited != "no tbf" || l["web"].Attempt != 2 {
		t.Errorf("%+v", l)
	}
	k.bandwidth = nil
	k.find()
	if l := k.Lacks(); len(l) != 0 {
		t.Errorf("%+v", l)
	}
}
