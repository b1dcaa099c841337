// SPDX-License-Identifier: Apache-2.0

// Package loopback6 forwards connections to [::1] on ports that sandboxes publish. For
// 127.0.0.1 the kernel does that, but it can't give packets from ::1 another way than the
// one back. While nobody runs a Forwarder, such connections are refused, and those that
// were forwarded are gone; on all other addresses ports are published by the kernel alone.
package loopback6

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Port is a port of [::1], and where its connections go.
type Port struct {
	Protocol string // tcp or udp
	Port     uint16
}

// Bounds of what one port can cost the process: connections of a program of the host, and
// how long one may say nothing. A guest that keeps connections open takes from its own
// port only.
const (
	mostConnections = 256
	// mostEach is of all ports of one sandbox, mostAll of all sandboxes, but for fewEach of each.
	mostEach, mostAll, fewEach = 512, 2048, 8
	idleTCP                    = 2 * time.Hour
	idleUDP                    = time.Minute
	dialTime                   = 10 * time.Second
)

// Forwarder forwards the ports that it was told last.
type Forwarder struct {
	mu    sync.Mutex
	open  map[Port]*listener
	group sync.WaitGroup
	// places are those of all ports.
	places places
}

// places counts connections, by the address of the sandbox. The zero value is ready.
type places struct {
	mu  sync.Mutex
	all int
	of  map[netip.Addr]int
}

// take takes one, if there is one. A sandbox that keeps what comes to its many ports open
// takes none away that others have few of.
func (p *places) take(sandbox netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.of[sandbox]; n >= mostEach || p.all >= mostAll && n >= fewEach {
		return false
	}
	if p.of == nil {
		p.of = map[netip.Addr]int{}
	}
	p.of[sandbox]++
	p.all++
	return true
}

func (p *places) give(sandbox netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all--
	if p.of[sandbox]--; p.of[sandbox] == 0 {
		delete(p.of, sandbox)
	}
}

// listener is one open port.
type listener struct {
	to     netip.AddrPort
	end    context.CancelFunc
	closes interface{ Close() error }
}

// New is a forwarder without ports.
func New() *Forwarder { return &Forwarder{open: map[Port]*listener{}} }

// Set has the forwarder forward exactly these ports. One whose destination stays is left
// alone, with its connections; those of others end. It returns the ports that could not be
// opened, for a program of the host has them; they are tried again by the next Set.
func (f *Forwarder) Set(ctx context.Context, ports map[Port]netip.AddrPort) (refused map[Port]error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.open, func(p Port, l *listener) bool {
		if ports[p] == l.to {
			return false
		}
		l.stop()
		return true
	})
	refused = map[Port]error{}
	for p, to := range ports {
		if f.open[p] != nil {
			continue
		}
		l, err := f.listen(ctx, p, to)
		if err != nil {
			refused[p] = fmt.Errorf("forward [::1]:%d (%s) to %s: %w", p.Port, p.Protocol, to, err)
			continue
		}
		f.open[p] = l
	}
	return refused
}

// Close ends all ports and connections, and returns when none is left.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, l := range f.open {
		l.stop()
		delete(f.open, p)
	}
	f.group.Wait()
	return nil
}

func (l *listener) stop() {
	l.end()
	_ = l.closes.Close()
}

// listen opens a port. What it starts ends with the port, not with ctx, which is that of
// one Set.
func (f *Forwarder) listen(ctx context.Context, p Port, to netip.AddrPort) (*listener, error) {
	address := netip.AddrPortFrom(netip.IPv6Loopback(), p.Port).String()
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	config := net.ListenConfig{Control: only6}
	switch p.Protocol {
	case "tcp":
		l, err := config.Listen(ctx, "tcp6", address)
		if err != nil {
			end()
			return nil, err
		}
		f.group.Go(func() { f.accept(running, l, to) })
		return &listener{to, end, l}, nil
	case "udp":
		p, err := config.ListenPacket(ctx, "udp6", address)
		if err != nil {
			end()
			return nil, err
		}
		u := &datagrams{socket: p.(*net.UDPConn), to: to, places: &f.places, clients: map[netip.AddrPort]*net.UDPConn{}}
		f.group.Go(func() { u.serve(running, &f.group) })
		return &listener{to, end, p}, nil
	}
	end()
	return nil, fmt.Errorf("protocol %q: expected tcp or udp", p.Protocol)
}

// only6 keeps the socket off IPv4, whose ports are the kernel's.
func only6(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}), err)
}
