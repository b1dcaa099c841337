// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sandboxctl.dev/launcher/names"
)

const (
	// idleTime is how long a connection may wait for a question, and take to send it.
	idleTime = 10 * time.Second
	// writeTime is how long an answer may take to leave.
	writeTime = 2 * time.Second
	// maxQuestions is how many questions one connection may ask.
	maxQuestions = 256
)

// asker is who asks, and who is there at that moment.
type asker struct {
	directory *names.Directory
	sandbox   *names.Sandbox
	client    *client
}

// who returns nil for an address that is not one of a sandbox: nobody else is answered, so
// that the host is no open resolver, and so that our own questions never come back as those
// of somebody else.
func (s *Server) who(a netip.Addr) *asker {
	d := s.directory.Load()
	if d == nil {
		return nil
	}
	sb := d.Client(a)
	if sb == nil {
		return nil
	}
	return &asker{d, sb, s.limits.of(sb.Name)}
}

func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn, wg *sync.WaitGroup) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	buf := make([]byte, maxQuery)
	send := func(to netip.AddrPort, msg []byte) {
		if msg == nil {
			return
		}
		// What a client does not take is dropped, as the network drops it.
		_ = conn.SetWriteDeadline(time.Now().Add(writeTime))
		_, _ = conn.WriteToUDPAddrPort(msg, to)
	}
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.complain("read questions of sandboxes", "gateway", conn.LocalAddr().String(), "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		by := s.who(from.Addr())
		if by == nil || n == len(buf) || !by.client.rate.Allow() {
			continue
		}
		q, msg := parse(buf[:n], false)
		if q != nil {
			msg = local(by.directory, by.sandbox, q)
		}
		if q == nil || msg != nil {
			send(from, msg)
			continue
		}
		done, ok := s.limits.fly(by.client, q)
		if !ok {
			send(from, q.fails(dnsmessage.RCodeServerFailure))
			continue
		}
		wg.Go(func() {
			defer done()
			send(from, s.forward(ctx, by, q, false))
		})
	}
}

func (s *Server) serveTCP(ctx context.Context, l *net.TCPListener, wg *sync.WaitGroup) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.complain("accept questions of sandboxes", "gateway", l.Addr().String(), "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
		by := s.who(from)
		if by == nil {
			conn.Close()
			continue
		}
		done, ok := s.limits.connect(by.client)
		if !ok {
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer done()
			s.serveConn(ctx, conn, from)
		})
	}
}

// serveConn answers the questions of a connection, one after the other.
func (s *Server) serveConn(ctx context.Context, conn *net.TCPConn, from netip.Addr) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for range maxQuestions {
		if conn.SetDeadline(time.Now().Add(idleTime)) != nil {
			return
		}
		b, err := readMessage(conn, maxQuery)
		if err != nil {
			return
		}
		by := s.who(from) // it may be another sandbox's address by now
		if by == nil || !by.client.rate.Allow() {
			return
		}
		q, msg := parse(b, true)
		if q != nil {
			if msg = local(by.directory, by.sandbox, q); msg == nil {
				msg = s.forwardTCP(ctx, by, q)
			}
		}
		if msg == nil || conn.SetDeadline(time.Now().Add(writeTime)) != nil {
			return
		}
		out := binary.BigEndian.AppendUint16(make([]byte, 0, len(msg)+2), uint16(len(msg)))
		if _, err := conn.Write(append(out, msg...)); err != nil {
			return
		}
	}
}

func (s *Server) forwardTCP(ctx context.Context, by *asker, q *query) []byte {
	done, ok := s.limits.fly(by.client, q)
	if !ok {
		return q.fails(dnsmessage.RCodeServerFailure)
	}
	defer done()
	return s.forward(ctx, by, q, true)
}

// forward has servers answer, by the way that the client came: what was too long for UDP is
// asked again by TCP.
func (s *Server) forward(ctx context.Context, by *asker, q *query, tcp bool) []byte {
	host, err := s.Upstreams.Servers()
	if err != nil && len(by.sandbox.Outside.Servers) == 0 {
		s.complain("find out which servers the host asks for names", "error", err)
	}
	servers := serversFor(by.directory, by.sandbox, host)
	if len(servers) == 0 {
		s.complain("no server is there to ask for names", "sandbox", by.sandbox.Name)
		return q.fails(dnsmessage.RCodeServerFailure)
	}
	msg, err := s.forwarder.ask(ctx, servers, q, tcp, func() bool { return s.limits.ask(by.client, tcp) })
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, errTooMany) {
			s.complain("ask for a name", "sandbox", by.sandbox.Name, "error", err)
		}
		return q.fails(dnsmessage.RCodeServerFailure)
	}
	s.learn(by, q, msg)
	return msg
}

// learn reports what a name of a rule means before the sandbox knows it: its first packet
// is let through.
func (s *Server) learn(by *asker, q *query, msg []byte) {
	if s.Learned == nil || !ruleName(by.sandbox, q.name) {
		return
	}
	addresses, hold, private := meaning(q, msg)
	if private {
		s.complain("a name of an egress rule has addresses that are not public, which it does not let through: allow them as prefixes", "sandbox", by.sandbox.Name, "name", q.name)
	}
	if len(addresses) == 0 {
		return
	}
	if err := s.Learned(by.sandbox.Name, q.name, addresses, hold); err != nil {
		s.complain("let through what a name means", "sandbox", by.sandbox.Name, "error", err)
	}
}
