// SPDX-License-Identifier: Apache-2.0

// Package forward is the verb port-forward: it listens on this host, and connects what
// comes with ports in a sandbox, through the sandbox's sentry.
package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/launcher/sentry"
)

// mostConnections bounds how many connections there are at a time; more wait to be
// accepted. Each takes two descriptors here, and a part of the sandbox's memory.
const mostConnections = 200

// Command is the verb port-forward.
func Command(h *world.Host) *cobra.Command {
	var addresses []string
	cmd := &cobra.Command{
		Use:   "port-forward NAME [LOCAL:]REMOTE...",
		Short: "Connect local ports with ports in a sandbox",
		Long: `Listen on ports of this host, and connect each connection with a port in the
sandbox, on its loopback interface: also of a sandbox without a network. A service
that listens on 127.0.0.1, ::1 or all addresses of the sandbox is reached.

LOCAL is the same as REMOTE if it is left out. With :REMOTE, or 0:REMOTE, the
kernel chooses a free one, which is printed. TCP only.

It ends with a signal, as of Ctrl-C, and then with exit code 0. Until then it
listens, also while the sandbox is restarted or stopped: connections that it had are
closed, and new ones lead to what runs then, or are reset if nothing does. It ends
with exit code 1 when a connection comes and there is no sandbox of that name any
more.

Everyone who can reach the local port reaches the sandbox: with --address, that is
everyone on those networks.`,
		Example: `  sandboxctl port-forward web 8080:80         # curl http://localhost:8080
  sandboxctl port-forward db 5432 :9187       # two ports, the second at a free one
  sandboxctl port-forward web 80 --address 192.0.2.10`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return exit.Usagef("expected NAME and at least one [LOCAL:]REMOTE port")
			}
			return nil
		},
		ValidArgsFunction: h.CompleteNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			pairs, err := parsePorts(args[1:])
			if err != nil {
				return err
			}
			addrs, err := parseAddresses(addresses)
			if err != nil {
				return err
			}
			store, err := h.OpenStore()
			if err != nil {
				return err
			}
			defer store.Close()
			f := &forwarder{
				host: h, store: store, name: args[0], free: make(chan struct{}, mostConnections), notes: &notes{w: h.Stderr},
				silence: silence, conns: map[net.Conn]bool{},
			}
			return f.run(cmd.Context(), pairs, addrs)
		},
	}
	cmd.Flags().StringSliceVar(&addresses, "address", []string{"localhost"}, "IP addresses to listen at; localhost is 127.0.0.1 and ::1 (repeatable)")
	entry.CompleteValues(cmd, "address", "localhost", "0.0.0.0", "::")
	return cmd
}

// forwarder is one run of the verb.
type forwarder struct {
	host    *world.Host
	store   *actual.Store
	name    string
	notes   *notes
	silence time.Duration
	// free has an element for each connection.
	free chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]bool
	ended bool
	// gone says why it ended by itself.
	gone error
}

func (f *forwarder) run(ctx context.Context, pairs []pair, addrs []address) error {
	// What can't be is told at once, and not to the first who connects.
	control, _, err := f.host.Connect(ctx, f.store, f.name)
	if err != nil {
		return err
	}
	conn, err := control.Forward(ctx, 0)
	control.Close()
	if err != nil {
		return fmt.Errorf("forward ports of %s: %w", f.name, err)
	}
	_ = conn.Close() // nothing was written to it

	type open struct {
		net.Listener
		to uint16
	}
	var all []open
	var listeners []net.Listener
	defer func() { closeAll(listeners) }()
	for _, p := range pairs {
		ls, err := listen(ctx, addrs, p)
		if err != nil {
			return fmt.Errorf("forward port %d of %s: %w", p.to, f.name, err)
		}
		listeners = append(listeners, ls...)
		for _, l := range ls {
			all = append(all, open{l, p.to})
		}
	}
	for _, l := range all {
		if _, err := fmt.Fprintf(f.host.Stdout, "Forwarding from %s -> %d\n", l.Addr(), l.to); err != nil {
			return err
		}
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	stop := context.AfterFunc(ctx, func() {
		closeAll(listeners)
		f.closeConns()
	})
	defer stop()
	var wg sync.WaitGroup
	for _, l := range all {
		wg.Go(func() { f.accept(ctx, end, l, l.to) })
	}
	wg.Wait()
	return f.gone
}

// accept takes connections until ctx ends.
func (f *forwarder) accept(ctx context.Context, end context.CancelFunc, l net.Listener, to uint16) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			// Too many open files, a connection that was reset meanwhile: it passes.
			f.notes.printf("accept at %s: %v", l.Addr(), err)
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-ctx.Done():
				return
			}
		}
		// One that waits has its place: a port that nobody uses takes none.
		select {
		case f.free <- struct{}{}:
		case <-ctx.Done():
			conn.Close()
			return
		}
		wg.Go(func() {
			defer func() { <-f.free }()
			f.serve(ctx, end, conn.(*net.TCPConn), to)
		})
	}
}

// serve connects one connection.
func (f *forwarder) serve(ctx context.Context, end context.CancelFunc, conn *net.TCPConn, to uint16) {
	if !f.add(conn) {
		return
	}
	defer f.remove(conn)
	guest, err := f.connect(ctx, to)
	if err != nil {
		// A reset: an end would look like an answer that is empty.
		_ = conn.SetLinger(0) // the client may be gone
		if ctx.Err() != nil {
			return
		}
		f.notes.printf("%s -> %d: %v", conn.RemoteAddr(), to, err)
		if errors.Is(err, sentry.ErrNoSandbox) {
			f.checkGone(ctx, end)
		}
		return
	}
	if !f.add(guest) {
		return
	}
	defer f.remove(guest)
	relay(conn, guest, f.silence)
}

func (f *forwarder) connect(ctx context.Context, to uint16) (*net.UnixConn, error) {
	control, _, err := sentry.Connect(ctx, f.store, f.name)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	return control.Forward(ctx, to)
}

// checkGone ends everything if there is neither a sandbox of that name nor a manifest: one
// that is replaced has no record for a moment. What can't be told ends nothing.
func (f *forwarder) checkGone(ctx context.Context, end context.CancelFunc) {
	w, err := f.host.Once(ctx)
	if err != nil || w.Status(f.name) != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = w.NoSuch(f.name)
	end()
}

// add has a connection be closed with the others; one that comes too late is closed now.
func (f *forwarder) add(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		_ = c.Close() // nobody is told
		return false
	}
	f.conns[c] = true
	return true
}

func (f *forwarder) remove(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	_ = c.Close() // it may be closed already
}

func (f *forwarder) closeConns() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for c := range f.conns {
		_ = c.Close() // nobody is told
	}
}

// notes prints what happened to connections. Who connects again and again does not fill a
// terminal or a log with it.
type notes struct {
	mu      sync.Mutex
	w       io.Writer
	last    time.Time
	skipped int
}

const noteEvery = 200 * time.Millisecond

func (n *notes) printf(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.last) < noteEvery {
		n.skipped++
		return
	}
	if n.skipped > 0 {
		fmt.Fprintf(n.w, "note: %d more like that\n", n.skipped)
	}
	n.last, n.skipped = time.Now(), 0
	fmt.Fprintf(n.w, "note: %s\n", show.Clean(fmt.Sprintf(format, args...)))
}
