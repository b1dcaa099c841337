// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/time/rate"
)

// What sandboxes may have of the daemon. Each question under way is a goroutine and a
// socket, each connection a goroutine.
const (
	flyingEach = 64  // questions under way to servers, of one sandbox
	flyingAll  = 512 // of all, but for those of sandboxes that have few
	reserved   = 4   // so many of one sandbox are few: others can't take them from it
	connsEach  = 8   // connections by TCP, of one sandbox
	connsAll   = 256 // of all
	// sameEach is how often one sandbox may have one question under way. A server that
	// asks us what we have asked it would multiply a question until all is full.
	sameEach = 4
	// perSecond is how many questions of one sandbox are read; more are dropped, as a full
	// network drops them.
	perSecond, burst = 2000, 4000
	// Each socket to a server is a connection of the host in the kernel's table, which is
	// there for half a minute, whatever connections the sandbox itself may have, and one
	// question may need one to each server: so many are made for one sandbox in a second, and
	// for all of them; a few for each in any case. One by TCP counts as costTCP: it is there
	// for two minutes.
	askedEach, askedEachBurst = 200, 400
	askedAll, askedAllBurst   = 1000, 2000
	askedFew, askedFewBurst   = 5, 10
	costTCP                   = 4
)

// limits counts what is under way. The zero value is ready.
type limits struct {
	mu      sync.Mutex
	flying  int
	conns   int
	clients map[string]*client
	asked   *rate.Limiter // with the first client
}

// client is what one sandbox has under way.
type client struct {
	rate *rate.Limiter
	// asked bounds the sockets to servers, and few are those that the others leave it.
	asked, few *rate.Limiter

	flying int
	conns  int
	same   map[dnsmessage.Question]int
}

// of returns the counts of a sandbox.
func (l *limits) of(sandbox string) *client {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.clients[sandbox]
	if c == nil {
		if l.clients == nil {
			l.clients = map[string]*client{}
			l.asked = rate.NewLimiter(askedAll, askedAllBurst)
		}
		c = &client{
			rate: rate.NewLimiter(perSecond, burst), same: map[dnsmessage.Question]int{},
			asked: rate.NewLimiter(askedEach, askedEachBurst), few: rate.NewLimiter(askedFew, askedFewBurst),
		}
		l.clients[sandbox] = c
	}
	return c
}

// keep forgets sandboxes that are no more.
func (l *limits) keep(wanted func(sandbox string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, c := range l.clients {
		if c.flying == 0 && c.conns == 0 && !wanted(name) {
			delete(l.clients, name)
		}
	}
}

// fly begins a question to a server, if there may be one more.
func (l *limits) fly(c *client, q *query) (done func(), ok bool) {
	key := q.question
	key.Name = dnsmessage.Name{}
	copy(key.Name.Data[:], q.name)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flying >= flyingAll && c.flying >= reserved || c.flying >= flyingEach || c.same[key] >= sameEach {
		return nil, false
	}
	l.flying++
	c.flying++
	c.same[key]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.flying--
		c.flying--
		if c.same[key]--; c.same[key] == 0 {
			delete(c.same, key)
		}
	}, true
}

// ask says whether a server may be asked for a sandbox: whether there may be one more socket.
func (l *limits) ask(c *client, tcp bool) bool {
	n, now := 1, time.Now()
	if tcp {
		n = costTCP
	}
	return c.asked.AllowN(now, n) && (l.asked.AllowN(now, n) || c.few.AllowN(now, n))
}

// connect begins a connection by TCP, if there may be one more.
func (l *limits) connect(c *client) (done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns >= connsAll && c.conns > 0 || c.conns >= connsEach {
		return nil, false
	}
	l.conns++
	c.conns++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns--
		c.conns--
	}, true
}
