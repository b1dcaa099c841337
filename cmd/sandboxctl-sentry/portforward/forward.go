// SPDX-License-Identifier: Apache-2.0

// Package portforward connects sockets of clients with ports in a sandbox.
//
// gVisor has a proxy for that (runsc/boot/portforward). It is not used: it ends both
// directions when one ends, so that the answer to a client that has said all is lost; it
// loses what a short write leaves; it refuses sandboxes without a network, whose loopback
// works; and on the network of the host it connects to a port of the host.
package portforward

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/socket/netstack"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"sandboxctl.dev/cmd/sandboxctl-sentry/clientsocket"
	"sandboxctl.dev/cmd/sandboxctl-sentry/clientwork"
	"sandboxctl.dev/launcher/wire"
)

const (
	// connectLimit is how long the guest may take to accept a connection: a guest that
	// drops packets to its own loopback.
	connectLimit = 10 * time.Second
	// hungUpLimit is how long the guest may take nothing of what a client has left for it.
	hungUpLimit = 30 * time.Second
	// bufferSize is that of each direction.
	bufferSize = 32 << 10
)

// Serve connects a client's socket with a port of the sandbox in a goroutine of its own.
// The first line that the client reads is empty if it is connected, else why it is not.
// Port 0 connects nothing: it asks whether ports can be forwarded at all.
func Serve(k *kernel.Kernel, work *clientwork.Work, socket int, port uint16) error {
	client, err := clientsocket.New(socket, work.Stopped())
	if err != nil {
		work.End()
		return err
	}
	go func() {
		defer work.End()
		defer client.Close()
		serve(k, work, client, port)
	}()
	return nil
}

func serve(k *kernel.Kernel, work *clientwork.Work, client *clientsocket.Socket, port uint16) {
	st, ok := k.RootNetworkNamespace().Stack().(*netstack.Stack)
	if !ok {
		answer(client, wire.ForwardHostNetwork)
		return
	}
	if port == 0 {
		answer(client, "")
		return
	}
	g, err := connect(st.Stack, port, work.Stopped())
	if err != nil {
		answer(client, err.Error())
		return
	}
	defer g.ep.Close()
	if answer(client, "") {
		forward(client, g, work)
	}
}

func answer(client *clientsocket.Socket, line string) bool {
	_, err := client.Write([]byte(line + "\n"))
	return err == nil
}

// guest is a connection with a port of the sandbox.
type guest struct {
	ep    tcpip.Endpoint
	queue waiter.Queue
	stop  <-chan struct{}
}

// connect tries both addresses of the loopback: an application may listen on one of them
// alone.
func connect(s *stack.Stack, port uint16, stop <-chan struct{}) (*guest, error) {
	g, err := connectTo(s, ipv4.ProtocolNumber, tcpip.AddrFrom4([4]byte{127, 0, 0, 1}), port, stop)
	if err == nil {
		return g, nil
	}
	if g, err := connectTo(s, ipv6.ProtocolNumber, tcpip.AddrFrom16([16]byte{15: 1}), port, stop); err == nil {
		return g, nil
	}
	return nil, err
}

func connectTo(s *stack.Stack, network tcpip.NetworkProtocolNumber, addr tcpip.Address, port uint16, stop <-chan struct{}) (*guest, error) {
	g := &guest{stop: stop}
	ep, terr := s.NewEndpoint(tcp.ProtocolNumber, network, &g.queue)
	if terr != nil {
		return nil, errors.New(terr.String())
	}
	g.ep = ep
	if err := g.finish(tcpip.FullAddress{Addr: addr, Port: port}); err != nil {
		ep.Close()
		return nil, err
	}
	return g, nil
}

func (g *guest) finish(addr tcpip.FullAddress) error {
	e, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	g.queue.EventRegister(&e)
	defer g.queue.EventUnregister(&e)
	terr := g.ep.Connect(addr)
	if _, ok := terr.(*tcpip.ErrConnectStarted); ok {
		late := time.NewTimer(connectLimit)
		defer late.Stop()
		select {
		case <-ready:
			terr = g.ep.LastError()
		case <-late.C:
			return fmt.Errorf("the sandbox has not accepted the connection within %s", connectLimit)
		case <-g.stop:
			return clientsocket.ErrStopped
		}
	}
	if _, ok := terr.(*tcpip.ErrConnectionRefused); ok {
		return errors.New(wire.ForwardRefused)
	}
	if terr != nil {
		return errors.New(terr.String())
	}
	return nil
}

// try calls f until it does not have to wait.
func (g *guest) try(mask waiter.EventMask, f func() tcpip.Error) tcpip.Error {
	err := f()
	if !wouldBlock(err) {
		return err
	}
	e, ready := waiter.NewChannelEntry(mask | waiter.EventHUp | waiter.EventErr)
	g.queue.EventRegister(&e)
	defer g.queue.EventUnregister(&e)
	for {
		if err := f(); !wouldBlock(err) {
			return err
		}
		select {
		case <-ready:
		case <-g.stop:
			return &tcpip.ErrAborted{}
		}
	}
}

func wouldBlock(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrWouldBlock)
	return ok
}

// read reads at least one byte.
func (g *guest) read(b []byte) (n int, err tcpip.Error) {
	err = g.try(waiter.ReadableEvents, func() tcpip.Error {
		w := tcpip.SliceWriter(b)
		res, err := g.ep.Read(&w, tcpip.ReadOptions{})
		n = res.Count
		return err
	})
	return n, err
}

// write writes all of it. moved is called for what the guest took.
func (g *guest) write(b []byte, moved func()) tcpip.Error {
	r := bytes.NewReader(b)
	for r.Len() > 0 {
		if err := g.try(waiter.WritableEvents, func() tcpip.Error {
			_, err := g.ep.Write(r, tcpip.WriteOptions{})
			return err
		}); err != nil {
			return err
		}
		moved()
	}
	return nil
}

// forward copies in both directions until both have ended, each by itself: a client that
// has said all still gets its answer.
func forward(client *clientsocket.Socket, g *guest, work *clientwork.Work) {
	var moved atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { fromClient(client, g, func() { moved.Add(1) }) })
	wg.Go(func() { fromGuest(client, g, work) })
	go endHungUp(client, work, &moved, done)
	wg.Wait()
	close(done)
}

func fromClient(client *clientsocket.Socket, g *guest, moved func()) {
	buf := make([]byte, bufferSize)
	for {
		n, err := client.Read(buf)
		if n > 0 {
			if terr := g.write(buf[:n], moved); terr != nil {
				log.Debugf("forwarded connection: write to the guest: %s", terr)
				break
			}
		}
		if err != nil {
			// Of a client that was killed the guest reads the end, too.
			g.ep.Shutdown(tcpip.ShutdownWrite)
			return
		}
	}
	// The guest takes nothing more. What it has said is still to be read.
	_ = client.EndRead() // the client may be gone
}

func fromGuest(client *clientsocket.Socket, g *guest, work *clientwork.Work) {
	buf := make([]byte, bufferSize)
	for {
		n, terr := g.read(buf)
		if n > 0 {
			if _, err := client.Write(buf[:n]); err != nil {
				// Nobody reads: what the guest says from here on is refused.
				g.ep.Shutdown(tcpip.ShutdownRead)
				return
			}
		}
		switch terr.(type) {
		case nil:
		case *tcpip.ErrClosedForReceive:
			_ = client.EndWrite() // the client may be gone
			return
		default:
			// A connection that was reset has no other direction.
			work.Stop()
			return
		}
	}
}

// endHungUp ends a connection whose client is gone, when the guest has taken what there
// still was for it. A guest that takes nothing, or says nothing and never closes, would
// keep the connection for ever.
func endHungUp(client *clientsocket.Socket, work *clientwork.Work, moved *atomic.Int64, done <-chan struct{}) {
	select {
	case <-client.HungUp():
	case <-done:
		return
	}
	tick := time.NewTicker(hungUpLimit)
	defer tick.Stop()
	for last := moved.Load(); ; {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		now := moved.Load()
		if now == last {
			work.Stop()
			return
		}
		last = now
	}
}
