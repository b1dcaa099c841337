// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/links"
	"sandboxctl.dev/launcher/netns"
)

// hosted gives the world a network namespace for its daemons, which stands for the host.
func hosted(t *testing.T, args ...string) *world {
	t.Helper()
	host, err := netns.New()
	must(t, err)
	t.Cleanup(host.Close) // after the world, which looks there at last
	w := newWorld(t, args...)
	w.host = host
	must(t, w.host.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	}))
	return w
}

// document declares a network.
func (w *world) document(name, spec string) {
	w.put(name, fmt.Sprintf("apiVersion: %s\nkind: Network\nmetadata: {name: %s}\nspec: %s\n", desired.APIVersion, name, spec))
}

// tables of nftables of the host that are this program's.
func (w *world) tables() []string {
	w.t.Helper()
	var out []byte
	must(w.t, w.host.Do(func() (err error) {
		out, err = exec.Command("nft", "list", "tables").CombinedOutput()
		return err
	}))
	return lines(string(out), "sandboxctl")
}

// networked looks that each sandbox that runs has its links, addresses and rules, and that the
// host has nothing of others.
func (w *world) networked() error {
	list, err := w.store.List()
	if err != nil {
		return err
	}
	want, taken := map[string]*actual.Record{}, map[netip.Addr]string{}
	for _, r := range list.Records {
		if r.Phase != actual.PhaseRunning {
			continue
		}
		for _, a := range r.Attachments {
			want[a.Link] = r
			for _, ip := range []netip.Addr{a.Address4, a.Address6} {
				if other := taken[ip]; ip.IsValid() && other != "" {
					w.t.Fatalf("%s and %s have %s", other, r.Name, ip)
				}
				taken[ip] = r.Name
			}
		}
	}
	var have *links.Host
	if err := w.host.Do(func() (err error) { have, err = links.Look(); return err }); err != nil {
		return err
	}
	for _, l := range have.Links {
		r := want[l.Name]
		if r == nil {
			return fmt.Errorf("link %s of %s, which does not run", l.Name, l.Sandbox)
		}
		i := slices.IndexFunc(r.Attachments, func(a actual.Attachment) bool { return a.Link == l.Name })
		if a := &r.Attachments[i]; !l.Up || !slices.Contains(l.Addresses, a.Address4) || l.Sandbox != r.Name {
			return fmt.Errorf("link %+v of %+v", l, a)
		}
		delete(want, l.Name)
	}
	if len(want) > 0 {
		return fmt.Errorf("%d links are missing", len(want))
	}
	if len(have.Routes) > 0 && len(have.Links) == 0 {
		return fmt.Errorf("routes are left: %v", have.Routes)
	}
	return w.ruled(list.Records)
}

// ruled looks that the table has rules of those that run, and of nobody else.
func (w *world) ruled(records []*actual.Record) error {
	tables, running := w.tables(), map[string]bool{}
	for _, r := range records {
		if r.Phase == actual.PhaseRunning && len(r.Attachments) > 0 {
			running[r.Name] = true
		}
	}
	if len(running) == 0 || len(tables) != 1 {
		if len(running) == 0 && len(tables) == 0 {
			return nil
		}
		return fmt.Errorf("%d sandboxes run, and there are the tables %v", len(running), tables)
	}
	var out []byte
	err := w.host.Do(func() (err error) {
		out, err = exec.Command("nft", append([]string{"list"}, strings.Fields(tables[0])...)...).CombinedOutput()
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for _, l := range lines(string(out), "counter sent_") {
		name, _, _ := strings.Cut(strings.TrimPrefix(l, "counter sent_"), " ")
		if !strings.HasPrefix(l, "counter sent_") {
			continue // a rule
		}
		if !running[name] {
			return fmt.Errorf("rules of %s, which does not run", name)
		}
		delete(running, name)
	}
	if len(running) > 0 {
		return fmt.Errorf("no rules of %v", running)
	}
	return nil
}

// settleNetworks is settle, with what the host has of networks.
func (w *world) settleNetworks() {
	w.t.Helper()
	w.until("converge, with networks", func() error {
		return errors.Join(w.converged(), w.left(w.store), w.networked())
	})
}

// Many sandboxes on one network come, stay while their daemon is killed, and go; nothing is
// left of any of them. NETWORKED is how many, of which each has an address of its own and a
// port of the host.
func TestManyOnANetwork(t *testing.T) {
	requireHost(t)
	many := int(number(t, "NETWORKED", 30))
	w := hosted(t, "--resync", "2s")
	w.document(w.prefix+"-many", "{subnet: 10.44.0.0/16}")
	names := make([]string, many)
	w.start()
	// In steps of thirty: each has the time that a wait has.
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", w.prefix, i)
		w.put(names[i], w.manifest(names[i], 1, fmt.Sprintf("  network: {join: [%s-many], ports: [{containerPort: 80, hostPort: %d}]}\n", w.prefix, 2000+i)))
		if i%30 == 29 || i == many-1 {
			w.settleNetworks()
		}
	}
	before := w.twins()
	if len(before) != many {
		t.Fatalf("%d sandboxes run", len(before))
	}
	w.stop(unix.SIGKILL)
	for i := range many / 3 { // of each third one, while nobody looks
		w.remove(names[3*i])
	}
	must(t, w.host.Do(func() error {
		if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
	w.start()
	w.settleNetworks()
	for name, pair := range w.twins() {
		if before[name] != pair {
			t.Errorf("%s was %v and is %v", name, before[name], pair)
		}
	}
	// Addresses and ports of those that went are there for others.
	for i := range many / 3 {
		name := fmt.Sprintf("%s-new-%d", w.prefix, i)
		names = append(names, name)
		w.put(name, w.manifest(name, 1, fmt.Sprintf("  network: {join: [%s-many], ports: [{containerPort: 80, hostPort: %d}]}\n", w.prefix, 2000+3*i)))
		if i%30 == 29 {
			w.settleNetworks()
		}
	}
	w.settleNetworks()
	for _, name := range names {
		w.remove(name)
	}
	w.settleNetworks()
	w.remove(w.prefix + "-many")
	w.until("the subnet is free", func() error {
		files, err := os.ReadDir(filepath.Join(w.state, "networks"))
		if err == nil && len(files) > 0 {
			err = fmt.Errorf("%v are there", files)
		}
		return err
	})
	if left := w.tables(); len(left) > 0 {
		t.Errorf("tables are left: %v", left)
	}
}

// A network that is full says so, and those that found no room start when there is some.
func TestFullNetwork(t *testing.T) {
	t.Parallel()
	requireHost(t)
	w := hosted(t, "--resync", "1s")
	network := w.prefix + "-small"
	w.document(network, "{subnet: 10.45.0.0/29, ipv6: false}") // five addresses for sandboxes
	put := func(i int) string {
		name := fmt.Sprintf("%s-%d", w.prefix, i)
		w.put(name, w.manifest(name, 1, "  network: {join: ["+network+"]}\n"))
		return name
	}
	for i := range 5 {
		put(i)
	}
	w.start()
	w.settleNetworks()
	before := w.twins()
	late := []string{put(5), put(6)}
	for _, name := range late {
		w.until(name+" says what there is too little of", func() error {
			out, err := w.run("describe", name)
			if err != nil || !strings.Contains(out, "10.45.0.0/29: none is free; remove sandboxes of the network, or give it a larger subnet") {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	must(t, w.networked())
	w.remove(fmt.Sprintf("%s-%d", w.prefix, 1))
	w.remove(fmt.Sprintf("%s-%d", w.prefix, 3))
	w.settleNetworks()
	after := w.twins()
	for i := range 7 {
		name := fmt.Sprintf("%s-%d", w.prefix, i)
		if _, runs := after[name]; runs == (i == 1 || i == 3) || i < 5 && runs && before[name] != after[name] {
			t.Errorf("%s was %v and is %v", name, before[name], after[name])
		}
	}
	// With a larger subnet all are restarted, and there is room for those of before.
	put(1)
	put(3)
	w.document(network, "{subnet: 10.45.0.0/28, ipv6: false}")
	w.settleNetworks()
	if n := len(w.twins()); n != 7 {
		t.Errorf("%d run", n)
	}
}
