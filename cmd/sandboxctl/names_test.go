// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/netip"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/net/dns/dnsmessage"

	"sandboxctl.dev/launcher/netns"
)

// cmdNameserver answers questions in a network namespace until the script ends: nameserver
// NAMESPACE ADDRESS NAME=ADDRESS.... Of other names it says that there is no such.
// nameserver stop ends the one that was started last.
func cmdNameserver(ts *testscript.TestScript, neg bool, args []string) {
	st := ts.Value(keyDaemon).(*scriptState)
	if !neg && len(args) == 1 && args[0] == "stop" && st.nameserver != nil {
		st.nameserver.Close()
		return
	}
	if neg || len(args) < 2 {
		ts.Fatalf("usage: nameserver stop, or nameserver NAMESPACE ADDRESS NAME=ADDRESS...")
	}
	n, err := netns.Open(args[0])
	ts.Check(err)
	defer n.Close()
	known := map[string]netip.Addr{}
	for _, a := range args[2:] {
		name, to, _ := strings.Cut(a, "=")
		known[name+"."], err = netip.ParseAddr(to)
		ts.Check(err)
	}
	var conn net.PacketConn
	ts.Check(n.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", net.JoinHostPort(args[1], "53"))
		return err
	}))
	st.nameserver = conn
	done := make(chan struct{})
	ts.Defer(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			size, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:size]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response = true
			to, ok := known[q.Name.String()]
			switch {
			case !ok:
				m.RCode = dnsmessage.RCodeNameError
			case q.Type == dnsmessage.TypeA && to.Is4():
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}, Body: &dnsmessage.AResource{A: to.As4()}}}
			}
			if b, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(b, from)
			}
		}
	}()
}
