// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/names"
)

const (
	// port is where names are asked for.
	port = 53
	// listenAgain is how long after a failure a gateway is listened on again, at first; after
	// each further one twice as long, up to listenMost.
	listenAgain = 2 * time.Second
	listenMost  = 30 * time.Second
	// complainAgain is how often a failure that goes on is logged.
	complainAgain = time.Minute
)

// Server answers sandboxes, at the gateways of their networks.
type Server struct {
	// Upstreams are the servers of the host.
	Upstreams *Upstreams
	// Learned is told what addresses a name of an egress rule of a sandbox has, before
	// the sandbox is. It may be nil.
	Learned func(sandbox, name string, addrs []netip.Addr, hold time.Duration) error
	Log     *slog.Logger

	// Tests listen elsewhere.
	port uint16

	directory atomic.Pointer[names.Directory]
	limits    limits
	forwarder forwarder

	mu         sync.Mutex
	changed    chan struct{}
	complained map[string]time.Time
}

// SetDirectory says who is there from now on. The gateways of their networks are listened
// on.
func (s *Server) SetDirectory(d *names.Directory) {
	s.directory.Store(d)
	s.limits.keep(d.Has)
	select {
	case s.wake() <- struct{}{}:
	default:
	}
}

func (s *Server) wake() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{}, 1)
	}
	return s.changed
}

// Serve answers until ctx ends, and returns when nothing is under way any more.
func (s *Server) Serve(ctx context.Context) {
	if s.port == 0 {
		s.port = port
	}
	if s.forwarder.port == 0 {
		s.forwarder.port = port
	}
	open := map[netip.Addr]*listener{}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		for _, l := range open {
			l.close()
		}
	}()
	failed := map[netip.Addr]*failure{}
	for {
		var again <-chan time.Time
		if wait := s.listen(ctx, open, failed, &wg); wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake():
		case <-again:
		}
	}
}

// failure is a gateway that could not be listened on. A port that somebody else has stays
// taken for a long time: it is tried less and less often, and told of when something changes.
type failure struct {
	text  string
	wait  time.Duration
	again time.Time
}

// after says what follows from one more failure of a gateway, and whether it is news.
func (f *failure) after(err error, now time.Time) (next *failure, news bool) {
	next = &failure{text: err.Error(), wait: listenAgain}
	if news = f == nil || f.text != next.text; f != nil {
		next.wait = min(2*f.wait, listenMost)
	}
	next.again = now.Add(next.wait)
	return next, news
}

// listen opens what is missing and closes what is no longer wanted. It returns how long after
// it is to be called again, 0 for not at all.
func (s *Server) listen(ctx context.Context, open map[netip.Addr]*listener, failed map[netip.Addr]*failure, wg *sync.WaitGroup) (wait time.Duration) {
	var want []netip.Addr
	if d := s.directory.Load(); d != nil {
		want = d.Gateways()
	}
	for a, l := range open {
		if !slices.Contains(want, a) {
			l.close()
			delete(open, a)
		}
	}
	maps.DeleteFunc(failed, func(a netip.Addr, _ *failure) bool { return !slices.Contains(want, a) })
	for _, a := range want {
		if open[a] != nil {
			continue
		}
		had := failed[a]
		if had == nil || !time.Now().Before(had.again) {
			if s.open(ctx, a, open, failed, wg) {
				continue
			}
		}
		if left := max(time.Until(failed[a].again), time.Millisecond); wait == 0 || left < wait {
			wait = left
		}
	}
	return wait
}

// open listens on one gateway, or notes why that failed.
func (s *Server) open(ctx context.Context, a netip.Addr, open map[netip.Addr]*listener, failed map[netip.Addr]*failure, wg *sync.WaitGroup) bool {
	had := failed[a]
	l, err := listenAt(ctx, netip.AddrPortFrom(a, s.port))
	if err != nil {
		next, news := had.after(err, time.Now())
		failed[a] = next
		if news && s.Log != nil {
			s.Log.Warn("can't answer names of sandboxes; sandboxctl doctor says who has the port", "gateway", a.String(), "err", err)
		}
		return false
	}
	open[a] = l
	delete(failed, a)
	if had != nil && s.Log != nil {
		s.Log.Info("names of sandboxes are answered again", "gateway", a.String())
	}
	wg.Go(func() { s.serveUDP(ctx, l.udp, wg) })
	wg.Go(func() { s.serveTCP(ctx, l.tcp, wg) })
	return true
}

// complain logs something that a guest or a server could repeat for ever, once in a while.
func (s *Server) complain(msg string, args ...any) {
	key := fmt.Sprint(append([]any{msg}, args[:min(2, len(args))]...)...)
	s.mu.Lock()
	now := time.Now()
	maps.DeleteFunc(s.complained, func(_ string, t time.Time) bool { return now.Sub(t) > complainAgain })
	_, lately := s.complained[key]
	if !lately && len(s.complained) < 256 {
		if s.complained == nil {
			s.complained = map[string]time.Time{}
		}
		s.complained[key] = now
	} else {
		lately = true
	}
	s.mu.Unlock()
	if !lately && s.Log != nil {
		s.Log.Warn(msg, args...)
	}
}

// listener is one gateway.
type listener struct {
	udp *net.UDPConn
	tcp *net.TCPListener
}

func (l *listener) close() {
	l.udp.Close()
	l.tcp.Close()
}

// listenAt opens both sockets of a gateway, which may have the address later: it comes and
// goes with the sandboxes of the network.
func listenAt(ctx context.Context, at netip.AddrPort) (*listener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
		return errors.Join(cerr, err)
	}}
	u, err := c.ListenPacket(ctx, "udp", at.String())
	if err != nil {
		return nil, err
	}
	t, err := c.Listen(ctx, "tcp", at.String())
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return &listener{u.(*net.UDPConn), t.(*net.TCPListener)}, nil
}
