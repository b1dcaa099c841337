// SPDX-License-Identifier: Apache-2.0

package loopback6

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// accept forwards the connections of a port, at most mostConnections of them at a time:
// others wait in the queue of the kernel.
func (f *Forwarder) accept(ctx context.Context, l net.Listener, to netip.AddrPort) {
	places := make(chan struct{}, mostConnections)
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		c, err := l.Accept()
		if err != nil {
			<-places
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			// Out of descriptors, or the client is gone already.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		if !f.places.take(to.Addr()) {
			<-places
			_ = errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close()) // refused, as far as it can be
			continue
		}
		f.group.Go(func() {
			defer func() { f.places.give(to.Addr()); <-places }()
			forward(ctx, c.(*net.TCPConn), to)
		})
	}
}

// forward connects a client with a sandbox. If the sandbox refuses, the client is refused
// too, as far as it can be after it was accepted: by a reset.
func forward(ctx context.Context, client *net.TCPConn, to netip.AddrPort) {
	defer func() { _ = client.Close() }()
	dialer := net.Dialer{Timeout: dialTime}
	c, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		_ = client.SetLinger(0)
		return
	}
	sandbox := c.(*net.TCPConn)
	defer func() { _ = sandbox.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = errors.Join(client.SetDeadline(past), sandbox.SetDeadline(past)) })
	defer stop()
	quiet := &activity{}
	quiet.seen()
	var both sync.WaitGroup
	both.Go(func() { relay(ctx, sandbox, client, quiet) })
	both.Go(func() { relay(ctx, client, sandbox, quiet) })
	both.Wait()
}

// past is a deadline that ends what waits.
var past = time.Unix(1, 0)

// activity is when something was said last, in whatever direction.
type activity struct{ at atomic.Int64 }

func (a *activity) seen()                { a.at.Store(time.Now().UnixNano()) }
func (a *activity) since() time.Duration { return time.Duration(time.Now().UnixNano() - a.at.Load()) }

// relay copies one direction, and passes on its end: a client that has said all may still
// be answered. After an error nothing can be said in the other direction either.
func relay(ctx context.Context, to, from *net.TCPConn, quiet *activity) {
	buffer := make([]byte, 16<<10)
	for ctx.Err() == nil {
		_ = from.SetReadDeadline(time.Now().Add(idleTCP))
		if ctx.Err() != nil {
			break
		}
		n, err := from.Read(buffer)
		if n > 0 {
			quiet.seen()
			_ = to.SetWriteDeadline(time.Now().Add(idleTCP))
			if _, err := to.Write(buffer[:n]); err != nil {
				break
			}
			quiet.seen()
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			_ = to.CloseWrite()
			return
		case errors.Is(err, os.ErrDeadlineExceeded) && quiet.since() < idleTCP:
		default:
			// Whoever waits in the other direction sees it.
			_ = errors.Join(to.SetLinger(0), to.Close(), from.Close())
			return
		}
	}
	_ = errors.Join(to.Close(), from.Close())
}
