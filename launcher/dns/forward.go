// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sandboxctl.dev/launcher/names"
)

const (
	// forwardTime is how long a question may take. Resolvers wait 5 s by default, and must
	// hear that there is no answer before that.
	forwardTime = 4500 * time.Millisecond
	// tryTime is how long one server may take.
	tryTime = 1400 * time.Millisecond
	// maxForged is how many messages that are not the answer are read for one question.
	maxForged = 64
	// avoidTime is how long a server that did not answer is asked last.
	avoidTime = 10 * time.Second
)

// forwarder asks servers.
type forwarder struct {
	port uint16 // of the servers

	mu    sync.Mutex
	avoid map[netip.Addr]time.Time
}

// errTooMany says that a sandbox has had servers be asked too often.
var errTooMany = errors.New("too many questions to servers")

// ask puts a question to servers, one after the other, until one answers, and as long as each
// may be asked. It returns the answer with the id of the client.
func (f *forwarder) ask(ctx context.Context, servers []netip.Addr, q *query, tcp bool, may func() bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, forwardTime)
	defer cancel()
	errs := []error{errors.New("no server answers")}
	var refusal []byte
all:
	for range 2 {
		for _, server := range f.order(servers) {
			if !may() {
				errs = append(errs, errTooMany)
				break all
			}
			msg, code, err := f.try(ctx, server, q, tcp)
			switch {
			case err == nil && decides(code):
				f.answered(server)
				return q.fit(msg), nil
			case err == nil:
				refusal = msg
				errs = append(errs, fmt.Errorf("%s: %v", server, code))
			default:
				errs = append(errs, fmt.Errorf("%s: %w", server, err))
				f.silent(server)
			}
			if ctx.Err() != nil {
				break
			}
		}
		if refusal != nil || ctx.Err() != nil {
			break
		}
	}
	if refusal != nil {
		return q.fit(refusal), nil
	}
	return nil, errors.Join(errs...)
}

// decides says whether another server need not be asked.
func decides(code dnsmessage.RCode) bool {
	switch code {
	case dnsmessage.RCodeServerFailure, dnsmessage.RCodeRefused, dnsmessage.RCodeNotImplemented:
		return false
	default:
		return true
	}
}

// order puts servers that did not answer lately last.
func (f *forwarder) order(servers []netip.Addr) []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(servers)
	now := time.Now()
	bad := func(a netip.Addr) int {
		if now.Before(f.avoid[a]) {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(out, func(a, b netip.Addr) int { return cmp.Compare(bad(a), bad(b)) })
	return out
}

func (f *forwarder) silent(server netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.avoid == nil || len(f.avoid) > 1024 { // servers of manifests come and go
		f.avoid = map[netip.Addr]time.Time{}
	}
	f.avoid[server] = time.Now().Add(avoidTime)
}

func (f *forwarder) answered(server netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.avoid, server)
}

// try asks one server, from a port of the kernel's choice: who forges an answer has to guess
// it, and the id.
func (f *forwarder) try(ctx context.Context, server netip.Addr, q *query, tcp bool) ([]byte, dnsmessage.RCode, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	var random [2]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, 0, err
	}
	id := binary.BigEndian.Uint16(random[:])
	out, err := q.ask(id, q.size)
	if err != nil {
		return nil, 0, err
	}
	network := "udp"
	if tcp {
		network = "tcp"
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, net.JoinHostPort(server.String(), strconv.Itoa(int(f.port))))
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var msg []byte
	var h dnsmessage.Header
	if tcp {
		msg, h, err = overTCP(conn, out, q, id)
	} else {
		msg, h, err = overUDP(conn, out[2:], q, id)
	}
	if err != nil {
		return nil, 0, errors.Join(ctx.Err(), err)
	}
	binary.BigEndian.PutUint16(msg, q.ID)
	return msg, h.RCode, nil
}

func overUDP(conn net.Conn, out []byte, q *query, id uint16) ([]byte, dnsmessage.Header, error) {
	if _, err := conn.Write(out); err != nil {
		return nil, dnsmessage.Header{}, err
	}
	buf := make([]byte, maxQuery)
	for range maxForged {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, dnsmessage.Header{}, err
		}
		if h, ok := q.answers(buf[:n], id); ok {
			return buf[:n], h, nil
		}
	}
	return nil, dnsmessage.Header{}, errors.New("too many messages that are not the answer")
}

func overTCP(conn net.Conn, out []byte, q *query, id uint16) ([]byte, dnsmessage.Header, error) {
	binary.BigEndian.PutUint16(out, uint16(len(out)-2))
	if _, err := conn.Write(out); err != nil {
		return nil, dnsmessage.Header{}, err
	}
	msg, err := readMessage(conn, maxTCP)
	if err != nil {
		return nil, dnsmessage.Header{}, err
	}
	h, ok := q.answers(msg, id)
	if !ok {
		return nil, h, errors.New("an answer to another question")
	}
	return msg, h, nil
}

// readMessage reads a message with its length before it.
func readMessage(r io.Reader, most int) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > most {
		return nil, fmt.Errorf("a message of %d bytes, at most %d are possible", n, most)
	}
	msg := make([]byte, n)
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// fit is a message that the client has room for: it asks again by TCP if this was none.
func (q *query) fit(msg []byte) []byte {
	if len(msg) <= q.size {
		return msg
	}
	return q.reply(reply{truncated: true})
}

// serversFor are those that a sandbox's questions go to. What would come back to us is left
// out: our own gateways, and the sandbox itself.
func serversFor(d *names.Directory, c *names.Sandbox, host []netip.Addr) []netip.Addr {
	servers := c.Outside.Servers
	if len(servers) == 0 {
		servers = host
	}
	gateways := d.Gateways()
	return slices.DeleteFunc(slices.Clone(servers), func(a netip.Addr) bool {
		return slices.Contains(gateways, a) || d.Client(a) == c || len(c.Outside.Servers) > 0 && ForbiddenServer(a)
	})
}

// ForbiddenServer says whether a manifest may not name a server: it is the daemon that asks,
// and what only the host reaches must not be asked by whoever writes manifests.
func ForbiddenServer(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// Probe asks a server something, and says why it gave no answer.
func Probe(ctx context.Context, server netip.Addr) error {
	root, err := dnsmessage.NewName(".")
	if err != nil {
		return err
	}
	q := &query{Header: dnsmessage.Header{RecursionDesired: true}, size: plainUDP, question: dnsmessage.Question{Name: root, Type: dnsmessage.TypeNS, Class: dnsmessage.ClassINET}}
	f := &forwarder{port: port}
	_, code, err := f.try(ctx, server, q, false)
	if err == nil && !decides(code) {
		return fmt.Errorf("%s answers with %v", server, code)
	}
	return err
}
