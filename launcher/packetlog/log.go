// SPDX-License-Identifier: Apache-2.0

package packetlog

import (
	"bytes"
	"errors"
	"hash/fnv"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"sandboxctl.dev/launcher/firewall"
)

const (
	// linesPerSecond and lineBurst bound the lines of all sandboxes together.
	linesPerSecond = 20
	lineBurst      = 200
	// sumEvery is how often it is told how many packets were left out, while there are some.
	sumEvery = 10 * time.Second
	// socketBuffer is what the kernel keeps of packets until they are read: some thousands.
	socketBuffer = 1 << 20
	// copied is how much of a packet is looked at.
	copied = 128
)

// Log writes what comes to one group of nflog. It is safe for concurrent use.
type Log struct {
	group    uint16
	counters func() (map[string]firewall.Counts, error)
	out      *slog.Logger
	every    time.Duration

	mu   sync.Mutex
	conn *netlink.Conn // nil while nothing is read
	// closed says that nothing will be read any more.
	closed bool
	over   sync.WaitGroup
	// failed says that what reads has ended by itself.
	failed atomic.Bool

	// What follows is of who reads.
	lines *rate.Limiter
	// heard are the sandboxes and kinds that packets came of since the last sum, with how
	// many of these were not written.
	heard map[of]uint64
	// base is what the counters said then.
	base map[string]firewall.Counts
}

// of is what a line is of.
type of struct {
	sandbox string
	kind    firewall.Kind
}

// New returns the log of the table of a name. counters are those of the table. Nothing is
// read before Open.
func New(table string, counters func() (map[string]firewall.Counts, error), out *slog.Logger) *Log {
	return &Log{group: groupOf(table), counters: counters, out: out, every: sumEvery}
}

// groupOf is a number that another program on the host, or another daemon, is not likely to
// have: small ones are for people.
func groupOf(table string) uint16 {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(table))
	return uint16(1024 + sum.Sum32()%(1<<16-1024))
}

// Open has packets be read from now on, if they are not already, and returns the group that
// rules are to log to. One that another program has is an error. After Close it is 0: rules are to
// log nothing.
func (l *Log) Open() (group uint16, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, nil
	}
	if l.conn != nil && !l.failed.Load() {
		return l.group, nil
	}
	l.over.Wait() // of one that has failed
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, busy(l.group, err)
	}
	_ = c.SetReadBuffer(socketBuffer)
	if err := bind(c, l.group); err != nil {
		return 0, busy(l.group, errors.Join(err, c.Close()))
	}
	if l.base, err = l.counters(); err != nil {
		l.base = nil // then what was left out before counts too
	}
	l.lines, l.heard = rate.NewLimiter(linesPerSecond, lineBurst), map[of]uint64{}
	l.conn = c
	l.failed.Store(false)
	l.over.Go(func() { l.read(c) })
	return l.group, nil
}

// bind has packets of a group come to a socket. It is one message: what comes after the first
// of two could be taken for the answer to the second.
func bind(c *netlink.Conn, group uint16) error {
	data, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: configCommand, Data: []byte{commandBind}}, {Type: configMode, Data: modeOf(copied)}})
	if err != nil {
		return err
	}
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_ULOG<<8 | configMessage), Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, byte(group >> 8), byte(group)}, data...),
	})
	return err
}

// Close ends it for good: a start that ends later opens nothing that stays. What rules log
// afterwards is lost.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.conn != nil {
		_ = l.conn.Close()
	}
	l.over.Wait()
	l.conn = nil
}

// read writes what comes, until the socket is closed.
func (l *Log) read(c *netlink.Conn) {
	var due time.Time // zero while nobody waits for a sum: then nothing wakes
	for {
		_ = c.SetReadDeadline(due) // of a socket that is closed Receive says so
		messages, err := c.Receive()
		switch {
		case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, unix.ENOBUFS):
			l.out.Warn("packets of sandboxes came faster than they are read: some are not logged, and not counted as left out")
		default:
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, unix.EBADF) {
				l.out.Warn("packets of sandboxes are not logged any more", "err", err)
			}
			_ = c.Close()
			l.failed.Store(true)
			return
		}
		for _, m := range messages {
			if said, ok := messageOf(m); ok {
				l.tell(said)
			}
		}
		switch now := time.Now(); {
		case due.IsZero() && len(l.heard) > 0:
			due = now.Add(l.every)
		case !due.IsZero() && !now.Before(due):
			due = time.Time{}
			l.sum()
		}
	}
}

// messageOf is what the kernel says of one packet.
func messageOf(m netlink.Message) (out message, ok bool) {
	if m.Header.Type != netlink.HeaderType(unix.NFNL_SUBSYS_ULOG<<8|packetMessage) || len(m.Data) < 4 {
		return out, false
	}
	list, err := netlink.UnmarshalAttributes(m.Data[4:])
	if err != nil {
		return out, false
	}
	for _, a := range list {
		switch a.Type {
		case attributePayload:
			out.packet = a.Data
		case attributePrefix:
			out.prefix = string(bytes.TrimRight(a.Data, "\x00"))
		}
	}
	return out, true
}

// tell writes one line, if there is room for it.
func (l *Log) tell(m message) {
	sandbox, kind, ok := firewall.Logged(m.prefix)
	if !ok {
		return
	}
	at := of{sandbox, kind}
	if !l.lines.Allow() {
		l.heard[at]++
		return
	}
	l.heard[at] += 0
	what := "connection allowed"
	if kind.Refused() {
		what = "packet refused"
	}
	words := []any{"sandbox", sandbox, "direction", kind.Direction()}
	if f, ok := parse(m.packet); ok {
		words = append(words, "protocol", f.protocol, "source", f.text(f.from, f.source), "destination", f.text(f.to, f.dest))
	}
	l.out.Info(what, words...)
}

// sum tells how many packets were left out since the last time.
func (l *Log) sum() {
	now, err := l.counters()
	if err != nil {
		l.out.Warn("it is not known how many packets of sandboxes were not logged", "err", err)
		now = l.base
	}
	for at, left := range l.heard {
		is, was := now[at.sandbox].Unlogged[at.kind], l.base[at.sandbox].Unlogged[at.kind]
		if is >= was {
			left += is - was
		} else {
			left += is // it began anew, with its sandbox
		}
		if left == 0 {
			continue
		}
		what := "more connections allowed than logged"
		if at.kind.Refused() {
			what = "more packets refused than logged"
		}
		l.out.Info(what, "sandbox", at.sandbox, "direction", at.kind.Direction(), "packets", left)
	}
	l.base, l.heard = now, map[of]uint64{}
}
