// SPDX-License-Identifier: Apache-2.0

package loopback6

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// datagrams forwards those of one port: each client has a socket of its own to the
// sandbox, by which answers find their way back.
type datagrams struct {
	socket *net.UDPConn
	to     netip.AddrPort
	places *places

	mu      sync.Mutex
	clients map[netip.AddrPort]*net.UDPConn
}

// largest is the largest datagram that there is.
const largest = 1 << 16

func (u *datagrams) serve(ctx context.Context, group *sync.WaitGroup) {
	defer u.endAll()
	buffer := make([]byte, largest)
	for ctx.Err() == nil {
		n, client, err := u.socket.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// That an answer could not be delivered; or the kernel has no memory for a while.
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		if c := u.client(ctx, client, group); c != nil {
			_, _ = c.Write(buffer[:n]) // a datagram may be lost
		}
	}
}

// client is the socket of a client. If there are too many, its datagram is lost, as
// datagrams may be: those that say nothing make room within a minute.
func (u *datagrams) client(ctx context.Context, client netip.AddrPort, group *sync.WaitGroup) *net.UDPConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.clients[client]; c != nil {
		_ = c.SetReadDeadline(time.Now().Add(idleUDP))
		return c
	}
	if len(u.clients) >= mostConnections || ctx.Err() != nil || !u.places.take(u.to.Addr()) {
		return nil
	}
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "udp", u.to.String())
	if err != nil {
		u.places.give(u.to.Addr())
		return nil
	}
	sandbox := c.(*net.UDPConn)
	_ = sandbox.SetReadDeadline(time.Now().Add(idleUDP))
	u.clients[client] = sandbox
	group.Go(func() { u.answer(client, sandbox) })
	return sandbox
}

// answer passes on what a sandbox says to a client, until neither has said anything for a
// minute.
func (u *datagrams) answer(client netip.AddrPort, sandbox *net.UDPConn) {
	defer func() {
		u.mu.Lock()
		delete(u.clients, client)
		u.mu.Unlock()
		_ = sandbox.Close()
		u.places.give(u.to.Addr())
	}()
	buffer := make([]byte, largest)
	for {
		n, err := sandbox.Read(buffer)
		if err != nil {
			return // nothing for a minute, nobody listens, or the port is closed
		}
		_ = sandbox.SetReadDeadline(time.Now().Add(idleUDP))
		_, _ = u.socket.WriteToUDPAddrPort(buffer[:n], client)
	}
}

func (u *datagrams) endAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.clients {
		_ = c.Close() // a deadline would be moved by what the sandbox says meanwhile
	}
}
