// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/netns"
)

// lan is a host of a measurement and another machine beside it: network namespaces of this
// run. The network of this host is not touched.
type lan struct {
	host, far *netns.Namespace
	net       *os.File
	mounts    *os.File // namespace of the host's processes, nil for that of this one
}

// hostAddress is where the other machine finds the host.
const hostAddress = "192.0.2.1"

// newLAN makes both. With mounts, the host has directories of its own where podman's networks
// are kept for the whole machine.
func newLAN(mounts bool) (l *lan, err error) {
	l = &lan{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.host, err = netns.New(); err != nil {
		return l, err
	}
	if l.far, err = netns.New(); err != nil {
		return l, err
	}
	if l.net, err = l.host.File(); err != nil {
		return l, err
	}
	if mounts {
		if l.mounts, err = ownMounts("/run/netns", "/var/lib/cni"); err != nil {
			return l, fmt.Errorf("make a mount namespace for podman: %w", err)
		}
	}
	far, err := l.far.File()
	if err != nil {
		return l, err
	}
	defer far.Close()
	err = l.host.Do(func() error {
		return errors.Join(
			netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "lan", PeerNamespace: netlink.NsFd(int(far.Fd()))}),
			linkUp("lo", ""), linkUp("lan", hostAddress+"/24"))
	})
	if err != nil {
		return l, fmt.Errorf("make a network: %w", err)
	}
	if err := l.far.Do(func() error { return errors.Join(linkUp("lo", ""), linkUp("lan", "192.0.2.2/24")) }); err != nil {
		return l, fmt.Errorf("make a network: %w", err)
	}
	return l, nil
}

// linkUp switches an interface on and gives it an address.
func linkUp(name, address string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if address != "" {
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// ownMounts makes a mount namespace that has empty file systems at the directories.
func ownMounts(dirs ...string) (f *os.File, err error) {
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		for _, d := range dirs {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
			if err := unix.Mount("bench", d, "tmpfs", 0, ""); err != nil {
				return fmt.Errorf("mount a tmpfs at %s: %w", d, err)
			}
		}
		f, err = os.Open("/proc/thread-self/ns/mnt")
		return err
	})
	return f, err
}

// onThread calls fn on a thread that ends with it.
func onThread(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The first thread does not end, and /proc/self is about it. While it waits
			// here, it is another one.
			defer runtime.UnlockOSThread()
			done <- onThread(fn)
			return
		}
		done <- fn() // and it stays locked
	}()
	return <-done
}

// do calls fn on the host: processes that it starts are there.
func (l *lan) do(fn func() error) error {
	return onThread(func() error {
		if l.mounts != nil {
			// A thread that shares its directory with others can't have other mounts.
			if err := errors.Join(unix.Unshare(unix.CLONE_FS), unix.Setns(int(l.mounts.Fd()), unix.CLONE_NEWNS)); err != nil {
				return err
			}
		}
		if err := unix.Setns(int(l.net.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
}

// close releases the namespaces, which are gone when their last process is.
func (l *lan) close() {
	for _, n := range []*netns.Namespace{l.host, l.far} {
		if n != nil {
			n.Close()
		}
	}
	for _, f := range []*os.File{l.net, l.mounts} {
		if f != nil {
			_ = f.Close() // nothing was written to it
		}
	}
}
