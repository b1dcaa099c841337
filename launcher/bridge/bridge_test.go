// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/addresses"
	"sandboxctl.dev/launcher/firewall"
	"sandboxctl.dev/launcher/loopback6"
	"sandboxctl.dev/launcher/netns"
)

var pools = Pools{[]netip.Prefix{netip.MustParsePrefix("10.208.0.0/12")}, []netip.Prefix{netip.MustParsePrefix("fd5b:210::/48")}}

// world is a state directory, and a network namespace that stands for the host.
type world struct {
	t        testing.TB
	ns       *netns.Namespace
	k        *Keeper
	declared map[string]*networks.Declared
}

// lookEvery is that of a daemon.
const lookEvery = 30 * time.Second

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldAt(t, t.TempDir())
}

func newWorldAt(t testing.TB, dir string) *world {
	t.Helper()
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	store, err := actual.OpenStore(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	k, err := New(store, lookEvery, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, ns: ns, k: k, declared: map[string]*networks.Declared{}}
}

// choose has a sandbox be started: its record says what was chosen.
func (w *world) choose(name string, n networks.Network) (*actual.Record, error) {
	w.t.Helper()
	n.Mode = networks.Bridge
	n.Fill()
	rec, _, err := w.k.store.Get(name)
	if err != nil {
		w.t.Fatal(err)
	}
	if rec == nil {
		if err := w.k.store.Claim(name); err != nil {
			w.t.Fatal(err)
		}
	}
	rec = actual.NextAttempt(rec, actual.Intent{Name: name, UID: actual.NewUID(), Spec: []byte(`{}`)}, time.Now())
	var done func()
	var cerr error
	err = w.ns.Do(func() error {
		done, cerr = w.k.Choose(rec, &Wanted{Network: &n, Declared: func(name string) *networks.Declared { return w.declared[name] }, Pools: pools})
		return nil
	})
	if err == nil {
		err = w.k.store.Put(rec)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	done()
	return rec, cerr
}

func (w *world) mustChoose(name string, n networks.Network) *actual.Record {
	w.t.Helper()
	rec, err := w.choose(name, n)
	if err != nil {
		w.t.Fatal(err)
	}
	return rec
}

// Each sandbox has addresses of its own, which it keeps when it is started again, whatever
// other ones did meanwhile.
func TestChoose(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := map[netip.Addr]string{}
	var first []*actual.Record
	for i := range 20 {
		r := w.mustChoose(fmt.Sprint("s", i), networks.Network{})
		if len(r.Attachments) != 1 {
			t.Fatalf("%+v", r.Attachments)
		}
		a := &r.Attachments[0]
		if !pools.V4[0].Contains(a.Address4) || !a.Subnet4.Contains(a.Address4) || !pools.V6[0].Contains(a.Address6) || !a.Default || a.Interface != "eth0" || a.MTU != 1500 {
			t.Errorf("%+v", a)
		}
		for _, ip := range []netip.Addr{a.Address4, a.Address6} {
			if other := seen[ip]; other != "" || ip == addresses.Gateway(a.Subnet4) {
				t.Errorf("%s is %s and %s", ip, other, r.Name)
			}
			seen[ip] = r.Name
		}
		first = append(first, r)
	}
	for _, r := range first {
		if again := w.mustChoose(r.Name, networks.Network{}); !reflect.DeepEqual(r.Attachments, again.Attachments) {
			t.Errorf("%+v, then %+v", r.Attachments, again.Attachments)
		}
	}
	// What is on disk is what was chosen, and what a killed program has left there is removed.
	temp := filepath.Join(w.k.store.Path(), Directory, atomicfile.TempPrefix+"0011")
	if err := os.WriteFile(temp, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := New(w.k.store, lookEvery, w.k.log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(temp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", temp, err)
	}
	s, err := other.readSubnets("default")
	if err != nil || s.Subnet4 != first[0].Attachments[0].Subnet4 || s.Subnet6 != first[0].Attachments[0].Subnet6 {
		t.Errorf("%+v %v", s, err)
	}
}

// An address that was promised is not given away before the record says it.
func TestPromised(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := networks.Network{Mode: networks.Bridge}
	n.Fill()
	seen := map[netip.Addr]bool{}
	err := w.ns.Do(func() error {
		for i := range 5 {
			// All with the name that begins the search at one place, and none on record.
			rec := &actual.Record{Name: fmt.Sprint("p", i), UID: fmt.Sprint(i)}
			w.declared["default"] = &networks.Declared{Subnet: "10.9.0.0/29"}
			if _, err := w.k.Choose(rec, &Wanted{Network: &n, Declared: func(name string) *networks.Declared { return w.declared[name] }, Pools: pools}); err != nil {
				return err
			}
			if a := rec.Attachments[0].Address4; seen[a] {
				t.Errorf("%s twice", a)
			} else {
				seen[a] = true
			}
		}
		_, err := w.k.Choose(&actual.Record{Name: "p5"}, &Wanted{Network: &n, Declared: func(name string) *networks.Declared { return w.declared[name] }, Pools: pools})
		if !errors.Is(err, addresses.ErrExhausted) {
			t.Errorf("a sixth of five: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestChooseStatic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declared["back"] = &networks.Declared{Subnet: "10.44.0.0/24", Subnet6: "fd44::/64", Internal: true, MTU: 1400}
	w.declared["front"] = &networks.Declared{Subnet: "10.45.0.0/24", IPv6: new(bool)}
	r := w.mustChoose("db", networks.Network{Join: []string{"back"}, Address: networks.Addresses{"10.44.0.9", "fd44::9"}})
	if a := r.Attachments[0]; a.Address4.String() != "10.44.0.9" || a.Address6.String() != "fd44::9" || !a.Internal || a.Default || a.MTU != 1400 {
		t.Errorf("%+v", a)
	}
	r = w.mustChoose("web", networks.Network{Join: []string{"back", "front"}})
	if len(r.Attachments) != 2 || r.Attachments[0].Default || !r.Attachments[1].Default || r.Attachments[1].Address6.IsValid() || r.Attachments[1].Interface != "eth1" || r.Attachments[0].Link == r.Attachments[1].Link {
		t.Errorf("%+v", r.Attachments)
	}
	for what, n := range map[string]networks.Network{
		"taken":         {Join: []string{"back"}, Address: networks.Addresses{"10.44.0.9"}},
		"outside":       {Join: []string{"back"}, Address: networks.Addresses{"10.45.0.9"}},
		"gateway":       {Join: []string{"back"}, Address: networks.Addresses{"10.44.0.1"}},
		"no IPv6":       {Join: []string{"front"}, Address: networks.Addresses{"fd45::9"}},
		"no such":       {Join: []string{"nowhere"}},
		"one that is":   {Join: []string{"back", "nowhere"}},
		"gateway, IPv6": {Join: []string{"back"}, Address: networks.Addresses{"fd44::1"}},
	} {
		r, err := w.choose("other", n)
		if err == nil || len(r.Attachments) > 0 {
			t.Errorf("%s: %+v", what, r.Attachments)
		} else if waits := operation.PreconditionFailed(err); waits != slices.Contains([]string{"taken", "no such", "one that is"}, what) || waits == operation.Permanent(err) {
			t.Errorf("%s: %v: permanent %v, precondition %v", what, err, operation.Permanent(err), waits)
		}
	}
	// It leaves the network that it had, and finds its address there when it comes back.
	was := r.Attachments[0].Address4
	w.mustChoose("web", networks.Network{})
	if r = w.mustChoose("web", networks.Network{Join: []string{"back"}}); r.Attachments[0].Address4 != was {
		t.Errorf("%s, then %s", was, r.Attachments[0].Address4)
	}
}

// What the host has is nobody else's: a subnet that it reaches is not chosen, and refused if
// it is asked for; one that it begins to reach later does not end a network.
func TestChooseBesideRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declared["lan"] = &networks.Declared{Subnet: "192.168.7.0/24"}
	err := w.ns.Do(func() error {
		l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "far"}
		var errs []error
		errs = append(errs, netlink.LinkAdd(l), netlink.LinkSetUp(l))
		for _, a := range []string{"10.208.0.5/20", "192.168.7.5/24"} {
			addr, err := netlink.ParseAddr(a)
			errs = append(errs, err, netlink.AddrAdd(l, addr))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		t.Fatal(err)
	}
	r := w.mustChoose("web", networks.Network{})
	if a := r.Attachments[0]; a.Subnet4.String() != "10.208.16.0/20" {
		t.Errorf("%+v", a)
	}
	if _, err := w.choose("two", networks.Network{Join: []string{"lan"}}); err == nil || !strings.Contains(err.Error(), "192.168.7.0/24") {
		t.Errorf("a subnet of the host: %v", err)
	}
	w.declared["more"] = &networks.Declared{}
	if r := w.mustChoose("two", networks.Network{Join: []string{"more"}}); r.Attachments[0].Subnet4.String() != "10.208.32.0/20" {
		t.Errorf("%+v", r.Attachments)
	}
	// The host gets a route to the very subnet.
	err = w.ns.Do(func() error {
		l, err := netlink.LinkByName("lan")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("10.208.17.5/28")
		return errors.Join(err, netlink.AddrAdd(l, addr))
	})
	if err != nil {
		t.Fatal(err)
	}
	if again := w.mustChoose("web", networks.Network{}); again.Attachments[0] != r.Attachments[0] {
		t.Errorf("%+v, then %+v", r.Attachments, again.Attachments)
	}
}

// A file of subnets that is damaged is an error that says which, and changes nothing.
func TestSubnetsDamaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustChoose("web", networks.Network{})
	file := filepath.Join(w.k.store.Path(), Directory, "default.json")
	for _, text := range []string{"", "{", `{"version": 2, "name": "default"}`, `{"version": 1, "name": "other"}`, `{"version": 1, "name": "default", "subnet4": "x"}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.choose("db", networks.Network{}); err == nil || !strings.Contains(err.Error(), "networks/default.json") {
			t.Errorf("%q: %v", text, err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != text {
			t.Errorf("%q became %q, %v", text, b, err)
		}
	}
}

// record is one of a sandbox on a network.
func record(t *testing.T, name string, created int, phase actual.Phase, ports ...networks.Port) *actual.Record {
	t.Helper()
	sb := &desired.Sandbox{APIVersion: desired.APIVersion, Kind: "Sandbox", Metadata: desired.Metadata{Name: name}}
	sb.Spec.Root.Dir, sb.Spec.Command = "/", []string{"true"}
	sb.Spec.Network = networks.Network{Mode: networks.Bridge, Ports: ports}
	sb.Spec.Network.Fill()
	spec, err := desired.Canonical(sb)
	if err != nil {
		t.Fatal(err)
	}
	return &actual.Record{
		Name: name, UID: name, Phase: phase, Spec: spec, CreatedAt: time.Unix(int64(created), 0),
		Attachments: []actual.Attachment{{
			Network: "default", Link: "sb0123456789" + fmt.Sprint(created), Interface: "eth0", MTU: 1500,
			Subnet4: netip.MustParsePrefix("10.1.0.0/24"), Address4: netip.AddrFrom4([4]byte{10, 1, 0, byte(10 + created)}),
		}},
	}
}

// free says that the host has none of the ports.
func free(*networks.Port) string { return "" }

// Rules are of sandboxes that may run, by their manifests of now; who publishes a port first
// keeps it, and one that can't be published costs nobody anything.
func TestRuleset(t *testing.T) {
	t.Parallel()
	web := networks.Port{ContainerPort: 80, HostPort: 8080}
	six := networks.Port{ContainerPort: 80, HostPort: 8081, HostIP: "::1"}
	all := []*actual.Record{
		record(t, "young", 2, actual.PhaseRunning, web, networks.Port{ContainerPort: 81, HostPort: 8082}),
		record(t, "old", 1, actual.PhaseStarting, web, six),
		record(t, "stopped", 3, actual.PhaseStopped, networks.Port{ContainerPort: 82, HostPort: 8083}),
		record(t, "changed", 4, actual.PhaseStopping, networks.Port{ContainerPort: 83, HostPort: 8084}),
		{Name: "alone", Phase: actual.PhaseRunning},
	}
	r, refused := ruleset(all, map[string]*networks.Network{"changed": {
		Mode: networks.Bridge, Ports: []networks.Port{{Range: "90-92", HostPort: 9000, Protocol: "UDP"}},
		Egress: &networks.Reach{Default: networks.Deny, Allow: []string{"host:53", "example.org:443"}},
	}}, free)
	var names []string
	for _, s := range r.Sandboxes {
		names = append(names, s.Name)
	}
	if !slices.Equal(names, []string{"old", "young", "changed"}) {
		t.Fatalf("%v", names)
	}
	if old := r.Sandboxes[0]; len(old.Ports) != 1 || old.Ports[0].HostPort != 8080 || len(refused["old"]) != 1 {
		t.Errorf("%+v, refused %v", old.Ports, refused)
	}
	if young := r.Sandboxes[1]; len(young.Ports) != 1 || young.Ports[0].HostPort != 8082 || len(refused["young"]) != 1 || !strings.Contains(refused["young"][0], "old") {
		t.Errorf("%+v, refused %v", young.Ports, refused)
	}
	changed := r.Sandboxes[2]
	if len(changed.Ports) != 1 || changed.Ports[0].Count != 3 || changed.Ports[0].Protocol != "udp" || changed.Ports[0].To != 90 {
		t.Errorf("%+v", changed.Ports)
	}
	if changed.Egress.Default != "deny" || len(changed.Egress.Allow) != 2 || !changed.Egress.Allow[0].Host || changed.Egress.Allow[1].Name != "example.org" {
		t.Errorf("%+v", changed.Egress)
	}
	if changed.Attachments[0].Gateway4.String() != "10.1.0.1" || changed.Attachments[0].Gateway6.IsValid() {
		t.Errorf("%+v", changed.Attachments)
	}
	// A record whose spec can't be read has no ports, and reaches nobody.
	all[0].Spec = []byte("{")
	r, _ = ruleset(all[:1], nil, free)
	if s := r.Sandboxes[0]; s.Ports != nil || s.Egress.Default != "deny" || s.Ingress.Default != "deny" {
		t.Errorf("%+v", s)
	}
}

// Of a manifest that can't be read the last word counts, as long as the sandbox is on
// record.
func TestWant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := &networks.Network{Mode: networks.Bridge}
	w.k.Want(map[string]*networks.Network{"web": n, "db": n}, map[string]bool{"web": true, "db": true})
	w.k.Want(nil, map[string]bool{"web": true})
	if w.k.wanted["web"] != n || len(w.k.wanted) != 1 {
		t.Errorf("%v", w.k.wanted)
	}
	for range 2 {
		w.k.Want(nil, nil)
	}
	if len(w.k.wanted) != 0 || len(w.k.wakes) != 1 {
		t.Errorf("%v, %d wakes", w.k.wanted, len(w.k.wakes))
	}
	<-w.k.wakes
	w.k.settled()
	if w.k.Want(nil, nil); len(w.k.wakes) != 0 {
		t.Error("woken for nothing")
	}
}

// The answerer knows the sandboxes that may run, by their manifests of now, and what each
// may ask for.
func TestDirectory(t *testing.T) {
	t.Parallel()
	rec := func(name, at string, phase actual.Phase) *actual.Record {
		a := netip.MustParseAddr(at)
		return &actual.Record{Name: name, Phase: phase, Spec: []byte(`{"spec":{"network":{"mode":"bridge","aliases":["old-` + name + `"]}}}`), Attachments: []actual.Attachment{{
			Network: "front", Subnet4: netip.PrefixFrom(a, 24).Masked(), Address4: a,
		}}}
	}
	all := []*actual.Record{
		rec("web", "10.0.0.5", actual.PhaseRunning), rec("db", "10.0.0.6", actual.PhaseStarting), rec("gone", "10.0.0.7", actual.PhaseStopped), rec("shut", "10.0.0.8", actual.PhaseRunning),
	}
	d := directory(all, map[string]*networks.Network{
		"web":  {Aliases: []string{"www"}, ExtraHosts: []networks.ExtraHost{{IP: networks.HostGateway, Names: []string{"host"}}, {IP: "10.9.9.9", Names: []string{"registry"}}}},
		"shut": {Egress: &networks.Reach{Default: networks.Deny, Allow: []string{"example.org:443", "10.0.0.0/8", "sandbox:db"}}},
	})
	web, shut := d.Client(netip.MustParseAddr("10.0.0.5")), d.Client(netip.MustParseAddr("10.0.0.8"))
	if web == nil || shut == nil || d.Client(netip.MustParseAddr("10.0.0.7")) != nil {
		t.Fatal("the directory has others than those that may run")
	}
	for name, want := range map[string]string{
		"www": "10.0.0.5", "old-web": "", "db": "10.0.0.6", "old-db": "10.0.0.6", "gone": "", "host": "10.0.0.1", "registry": "10.9.9.9",
	} {
		f := d.Lookup(web, name)
		if got := strings.Trim(fmt.Sprint(f.Addresses), "[]"); got != want {
			t.Errorf("%s is %q, expected %q", name, got, want)
		}
	}
	if web.Outside.Closed || !shut.Outside.Closed || !slices.Equal(shut.Outside.Names, []string{"example.org"}) {
		t.Errorf("%+v, %+v", web.Outside, shut.Outside)
	}
	n := &networks.Network{DNS: &networks.DNS{Servers: []string{"9.9.9.9"}, Search: []string{"corp.example"}, Options: []string{"ndots:2"}}, Egress: &networks.Reach{Default: networks.Deny}}
	if sb := named(all[0], n); sb.Outside.Closed || len(sb.Outside.Servers) != 1 {
		t.Errorf("with servers of its own: %+v", sb.Outside)
	}
	if conf := ResolvConf(all[0], n); conf != "nameserver 10.0.0.1\nsearch front.internal corp.example\noptions ndots:2\n" {
		t.Errorf("%s", conf)
	}
}

// A daemon that finds no manifest of a sandbox has the rules that were in force, and not those
// of the last start, which may let through what was forbidden since.
func TestInForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.mustChoose("web", networks.Network{})
	rec.Spec = record(t, "web", 1, actual.PhaseRunning, networks.Port{ContainerPort: 80, HostPort: 8080}).Spec
	if err := w.k.store.Put(rec); err != nil {
		t.Fatal(err)
	}
	tight := &networks.Network{Mode: networks.Bridge, Egress: &networks.Reach{Default: networks.Deny}}
	tight.Fill()
	next, err := New(w.k.store, lookEvery, w.k.log)
	if err != nil {
		t.Fatal(err)
	}
	err = w.ns.Do(func() error {
		err := w.k.rules.Do()
		if s := w.k.installed.Sandboxes; err != nil || len(s) != 1 || len(s[0].Ports) != 1 || s[0].Egress.Default != networks.Allow {
			t.Errorf("at first: %+v, %v", s, err)
		}
		w.k.Want(map[string]*networks.Network{"web": tight}, map[string]bool{"web": true})
		return errors.Join(w.k.rules.Do(), next.rules.Do(), w.k.table.Remove())
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, k := range map[string]*Keeper{"this daemon": w.k, "the next one": next} {
		if s := k.installed.Sandboxes; len(s) != 1 || len(s[0].Ports) != 0 || s[0].Egress.Default != networks.Deny {
			t.Errorf("%s: %+v", what, s)
		}
	}
}

// Ports at [::1] are forwarded to the address that the rules of all other addresses have, and
// only those that are published there.
func TestLoopback(t *testing.T) {
	t.Parallel()
	four, six := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")
	got := loopback(&firewall.Ruleset{Sandboxes: []firewall.Sandbox{
		{
			Name: "both", Attachments: []firewall.Attachment{{Address4: four}, {Address4: netip.MustParseAddr("10.1.0.5"), Address6: six}},
			Ports: []firewall.Port{
				{Protocol: "tcp", HostPort: 8080, To: 80, Count: 2},
				{Protocol: "udp", HostIP: netip.IPv6Loopback(), HostPort: 53, To: 5353, Count: 1},
				{Protocol: "tcp", HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 9000, To: 80, Count: 1},
				{Protocol: "tcp", HostIP: netip.MustParseAddr("2001:db8::1"), HostPort: 9001, To: 80, Count: 1},
			},
		},
		{Name: "old", Attachments: []firewall.Attachment{{Address4: four}}, Ports: []firewall.Port{{Protocol: "tcp", HostPort: 7000, To: 70, Count: 1}}},
	}})
	want := map[loopback6.Port]netip.AddrPort{
		{Protocol: "tcp", Port: 8080}: netip.AddrPortFrom(six, 80), {Protocol: "tcp", Port: 8081}: netip.AddrPortFrom(six, 81), {Protocol: "udp", Port: 53}: netip.AddrPortFrom(six, 5353),
		{Protocol: "tcp", Port: 7000}: netip.AddrPortFrom(four, 70),
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, expected %v", got, want)
	}
}
