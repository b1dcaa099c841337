// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nfnetlink_log.h.
const (
	nfulnlConfig = 1
	nfulaCfgCmd  = 1
	nfulnlBind   = 1
	nfulaPrefix  = 10
)

// logOfHost has what is logged to group 7 come to a socket.
func logOfHost(t *testing.T, w *world) *netlink.Conn {
	t.Helper()
	var c *netlink.Conn
	w.host.must(t, func() (err error) {
		c, err = netlink.Dial(unix.NETLINK_NETFILTER, nil)
		return err
	})
	t.Cleanup(func() { c.Close() })
	bind, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: nfulaCfgCmd, Data: []byte{nfulnlBind}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_ULOG<<8 | nfulnlConfig), Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{unix.AF_UNSPEC, 0, 0, 7}, bind...),
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

// silent ends what kernels without work to do say to their neighbors, by IPv6.
func silent(t *testing.T, w *world) {
	t.Helper()
	for _, g := range w.guests {
		g.must(t, func() error { return sysctl(map[string]string{"ipv6/conf/all/disable_ipv6": "1"}) })
	}
}

// told are the prefixes of what was logged, and how often each came.
func told(c *netlink.Conn) map[string]int {
	out := map[string]int{}
	for {
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second)) // the kernel collects them for one
		messages, err := c.Receive()
		if err != nil {
			return out
		}
		for _, m := range messages {
			if m.Header.Type != netlink.Done { // of what was sent together
				out[text(m, nfulaPrefix)]++
			}
		}
	}
}

// What is refused is logged on request, with the name of the sandbox, and never faster
// than the bound; what is beyond is counted.
func TestLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rules.LogGroup = 7
	web := w.sandbox("web", "front", func(s *Sandbox) { s.Egress = Reach{Default: Deny, Log: true} })
	quiet := w.sandbox("quiet", "front", func(s *Sandbox) { s.Egress = Reach{Default: Deny} })
	silent(t, w)
	w.install()
	c := logOfHost(t, w)
	const packets = 2000
	b := (&packet{from: web.four, to: netip.MustParseAddr("1.1.1.1"), port: 9, text: "?"}).bytes()
	quiet.send(t, (&packet{from: quiet.four, to: netip.MustParseAddr("1.1.1.1"), port: 9, text: "?"}).bytes())
	began := time.Now()
	web.send(t, slices.Repeat([][]byte{b}, packets)...)
	bound := logBurst + logPerSecond*(int(time.Since(began).Seconds())+2)
	got := told(c)
	logs := got[EgressRefused.prefix("web")]
	if logs == 0 || logs > bound || len(got) != 1 {
		t.Errorf("logged %v, expected 1 to %d of web", got, bound)
	}
	all, err := w.table.Counters()
	if n := all["web"]; err != nil || n.DeniedPackets < packets || n.BarredPackets != 0 || n.DeniedPackets != n.Unlogged[EgressRefused]+uint64(logs) {
		t.Errorf("%+v %v, and %d were logged", n, err, logs)
	}
	if n := all["quiet"]; n.DeniedPackets != 1 || n.Unlogged != [kinds]uint64{} {
		t.Errorf("%+v", n)
	}
}

// Both directions are told apart; of what is allowed the first packet is told, to the host
// too; and without a group nothing is logged and all is as it was.
func TestLogKinds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rules.LogGroup = 7
	web := w.sandbox("web", "front", func(s *Sandbox) {
		s.Egress = Reach{Default: Deny, Allow: append(rulesOf("1.1.1.1/32"), Rule{Host: true, Port: 22}), Log: true, LogAllowed: true}
		s.Ingress = Reach{Default: Deny, Allow: []Rule{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Port: 80}}, Log: true, LogAllowed: true}
		s.Ports = []Port{{Protocol: "tcp", HostPort: 8080, To: 80, Count: 2}}
	})
	serve(t, web.testNS, "web", at("", 80))
	serve(t, web.testNS, "web", at("", 81))
	serve(t, w.host, "host", at("", 22))
	serve(t, w.outside, "outside", at("", 80))
	try := func() {
		t.Helper()
		answers(t, web.testNS, "tcp", "1.1.1.1:80", "outside")
		answers(t, web.testNS, "tcp", "1.1.1.2:80", "")
		answers(t, web.testNS, "tcp", at(gateway4, 22), "host")
		answers(t, w.outside, "tcp", at(lanHost4, 8080), "web")
		answers(t, w.outside, "tcp", at(lanHost4, 8081), "")
	}
	silent(t, w)
	w.install()
	c := logOfHost(t, w)
	try()
	got := told(c)
	for k, want := range map[Kind]int{EgressRefused: 1, IngressRefused: 1, EgressAllowed: 2, IngressAllowed: 1} {
		if n := got[k.prefix("web")]; n != want {
			t.Errorf("%s: logged %d times, expected %d: %v", k.prefix("web"), n, want, got)
		}
	}
	if all, err := w.table.Counters(); err != nil || all["web"].DeniedPackets == 0 || all["web"].BarredPackets == 0 {
		t.Errorf("%+v %v", all["web"], err)
	}
	w.rules.LogGroup = 0
	w.install()
	try()
	if got := told(c); len(got) != 0 {
		t.Errorf("logged without a group: %v", got)
	}
}

func TestLogged(t *testing.T) {
	t.Parallel()
	for k := range kinds {
		if name, got, ok := Logged(k.prefix("web-1")); name != "web-1" || got != k || !ok {
			t.Errorf("%s: %q %d %v", k.prefix("web-1"), name, got, ok)
		}
	}
	for _, text := range []string{"", "sandboxctl web egress", "sandboxctl web egress refused more", "other web egress refused", "sandboxctl We_b egress refused", "sandboxctl web egress maybe"} {
		if name, _, ok := Logged(text); ok {
			t.Errorf("%q is of %s", text, name)
		}
	}
}
