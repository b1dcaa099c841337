// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/netns"
)

// cmdHostnet makes two network namespaces, which stand for the host and for another
// machine beside it: hostnet. The files $HOSTNET and $FAR stand for them, and the daemon is
// started in the first one. The host is 192.0.2.1 and 2001:db8::1, the other 192.0.2.2 and
// 2001:db8::2. The network of this host is not touched.
func cmdHostnet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: hostnet")
	}
	st := ts.Value(keyDaemon).(*scriptState)
	host, far := scriptNamespace(ts, st, "HOSTNET"), scriptNamespace(ts, st, "FAR")
	defer host.Close()
	defer far.Close()
	f, err := far.File()
	ts.Check(err)
	defer f.Close()
	ts.Check(host.Do(func() error {
		return errors.Join(
			netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "lan", PeerNamespace: netlink.NsFd(int(f.Fd()))}),
			setUp("lo"), setUp("lan", "192.0.2.1/24", "2001:db8::1/64"))
	}))
	ts.Check(far.Do(func() error { return errors.Join(setUp("lo"), setUp("lan", "192.0.2.2/24", "2001:db8::2/64")) }))
	st.netns = ts.Getenv("HOSTNET")
}

// scriptNamespace makes a network namespace that is gone with the script.
func scriptNamespace(ts *testscript.TestScript, st *scriptState, variable string) *netns.Namespace {
	n, err := netns.New()
	ts.Check(err)
	path := ts.MkAbs(variable)
	ts.Check(os.WriteFile(path, nil, 0o600))
	ts.Check(n.Do(func() error { return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "") }))
	st.mounts = append(st.mounts, path)
	ts.Setenv(variable, path)
	return n
}

// setUp switches an interface on and gives it addresses.
func setUp(name string, addrs ...string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, text := range addrs {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}
