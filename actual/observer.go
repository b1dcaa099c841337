// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/process"
)

// Observer looks at the records and the processes of a state directory. It
// keeps a verified handle of every process that is alive, so that looking
// again costs one poll, and a process that was seen alive can't be mistaken
// for another afterwards.
type Observer struct {
	store     *Store
	processes process.Processes

	mu      sync.Mutex
	handles map[process.Identity]*handle
	gen     uint64 // of Observe, to find handles no record names any more

	epoll int // -1 without Run
	exits chan struct{}

	// patience is twinPatience, but for tests.
	patience time.Duration
}

type handle struct {
	p    *process.Handle
	gen  uint64
	dead bool
	// polled is the look that live is of.
	polled uint64
	live   process.Liveness
}

// NewObserver returns an observer of the store.
func NewObserver(store *Store) *Observer { return NewObserverOf(store, process.Host) }

// NewObserverOf returns an observer of the store, whose processes these are.
func NewObserverOf(store *Store, processes process.Processes) *Observer {
	return &Observer{store: store, processes: processes, handles: map[process.Identity]*handle{}, epoll: -1, exits: make(chan struct{}, 1), patience: twinPatience}
}

// Exits receives when a process that was seen alive has died, while Run runs.
func (o *Observer) Exits() <-chan struct{} { return o.exits }

// Observe returns what is true now. It fails only if the state directory
// can't be listed; whatever is wrong with one sandbox is said of that one.
func (o *Observer) Observe(ctx context.Context) (*Snapshot, error) {
	boot, err := o.processes.BootID()
	if err != nil {
		return nil, err
	}
	if err := o.store.Lost(); err != nil {
		return nil, err
	}
	list, err := o.store.List()
	if err != nil {
		return nil, err
	}
	requests, err := o.store.Requests()
	if err != nil {
		return nil, err
	}
	disk, err := o.store.Disk()
	if err != nil {
		return nil, err
	}
	full := ""
	if err := disk.Full(); err != nil {
		full = err.Error()
	}
	snap := &Snapshot{
		Sandboxes:   make([]Observed, len(list.Records)),
		Quarantined: list.Quarantined,
		Aborted:     list.Aborted,
		Requests:    requests,
		BootID:      boot,

		DiskPressure: disk.Pressure(),
		DiskFull:     full,
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gen++
	if o.gen == 1 {
		o.openAll(list.Records)
	}
	o.pollAll()
	twins, cancel := context.WithTimeout(ctx, o.patience)
	defer cancel()
	for i, rec := range list.Records {
		s := &snap.Sandboxes[i]
		s.Record = rec
		s.Sentry, s.Why = o.look(rec.Sentry, "sentry", s.Why)
		s.Gofer, s.Why = o.look(rec.Gofer, "gofer", s.Why)
		if s.Sentry == process.Dead {
			o.awaitTwin(twins, s)
			o.endOf(s)
		}
	}
	for id, h := range o.handles {
		if h.gen != o.gen {
			o.drop(id, h)
		}
	}
	return snap, nil
}

// twinPatience bounds how long a look waits for gofers that are about to end.
const twinPatience = 500 * time.Millisecond

// awaitTwin waits until the gofer of a sentry that has died is dead too, if that
// takes a moment only. A gofer that is killed closes its connections before it counts
// as dead: its sentry, which ends by that, may be seen dead first and would be taken
// for the one that was killed.
func (o *Observer) awaitTwin(ctx context.Context, s *Observed) {
	if s.Gofer != process.Alive || s.Record.Phase != PhaseRunning {
		return
	}
	if h := o.handles[*s.Record.Gofer]; h.p.Wait(ctx) == nil {
		h.polled = 0
		s.Gofer, s.Why = o.look(s.Record.Gofer, "gofer", s.Why)
	}
}

// endOf reads what the processes of a dead sandbox have left. Only now: while
// the sentry lived it might not have written it yet. What is not what they write
// is as good as absent; but what the system refused to read may say that a job
// is done, and nothing is done until that is known.
func (o *Observer) endOf(s *Observed) {
	var errno unix.Errno
	// A stop that was begun does not depend on it.
	waits := s.Record.Phase != PhaseStopping && s.Record.Phase != PhaseStopped
	x, err := o.store.ReadExit(s.Record)
	if waits && errors.As(err, &errno) {
		s.Sentry, s.Why = process.Unknown, err.Error()
		return
	}
	s.Exit = x
	left, err := o.store.goferExitedCleanly(s.Record)
	if waits && errors.As(err, &errno) {
		s.Sentry, s.Why = process.Unknown, err.Error()
		return
	}
	s.GoferExitedCleanly = s.Gofer == process.Dead && left
}

// look tells whether the process of id lives, by the handle of it if there is
// one. why is kept, or becomes the reason for Unknown.
func (o *Observer) look(id *process.Identity, what, why string) (process.Liveness, string) {
	if id == nil {
		return process.None, why
	}
	h, ok := o.handles[*id]
	if !ok {
		p, err := o.processes.Open(*id)
		switch {
		case errors.Is(err, process.ErrGone):
			return process.Dead, why
		case err != nil:
			return process.Unknown, fmt.Sprintf("%s: %v", what, err)
		}
		h = o.keep(*id, p)
	}
	h.gen = o.gen
	live := h.live
	if h.polled != o.gen {
		live = h.p.Alive()
	}
	if live == process.Dead && !h.dead {
		h.dead = true
		h.p.Reap()
	}
	if live == process.Unknown && why == "" {
		why = what + ": its pidfd can't be polled"
	}
	return live, why
}

func (o *Observer) keep(id process.Identity, p *process.Handle) *handle {
	h := &handle{p: p}
	o.handles[id] = h
	o.watch(p)
	return h
}

// openAll opens the processes of all records on all processors, for the first look: the
// other ones open what is new. One that can't be opened is left to look, which says why.
func (o *Observer) openAll(records []*Record) {
	var ids []process.Identity
	for _, r := range records {
		for _, id := range []*process.Identity{r.Sentry, r.Gofer} {
			if id != nil {
				ids = append(ids, *id)
			}
		}
	}
	opened := make([]*process.Handle, len(ids))
	each(len(ids), len(ids), func(i int) { opened[i], _ = o.processes.Open(ids[i]) })
	for i, p := range opened {
		switch _, twice := o.handles[ids[i]]; {
		case p == nil:
		case twice:
			p.Close()
		default:
			o.keep(ids[i], p)
		}
	}
}

// pollAll asks the kernel in one call which processes of the handles are dead. What it
// does not tell is asked of each by itself.
func (o *Observer) pollAll() {
	handles := make([]*handle, 0, len(o.handles))
	fds := make([]unix.PollFd, 0, len(o.handles))
	for _, h := range o.handles {
		if fd := h.p.FD(); fd >= 0 {
			handles, fds = append(handles, h), append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	if _, err := unix.Poll(fds, 0); err != nil {
		return
	}
	for i, h := range handles {
		switch events := fds[i].Revents; {
		case events == 0:
			h.live, h.polled = process.Alive, o.gen
		case events&unix.POLLIN != 0:
			h.live, h.polled = process.Dead, o.gen
		}
	}
}

func (o *Observer) drop(id process.Identity, h *handle) {
	h.p.Reap()
	// Closing the descriptor takes it out of the epoll set.
	h.p.Close()
	delete(o.handles, id)
}

// watch adds a process to the epoll set, once: it is reported when it dies and
// then no more.
func (o *Observer) watch(p *process.Handle) {
	if o.epoll < 0 {
		return
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(p.FD())}
	if err := unix.EpollCtl(o.epoll, unix.EPOLL_CTL_ADD, p.FD(), &ev); err != nil {
		// The periodic look finds it dead all the same, later.
		o.notify()
	}
}

func (o *Observer) notify() {
	select {
	case o.exits <- struct{}{}:
	default:
	}
}

// Run reports deaths on Exits until ctx is done. It collects those processes
// that are children of this program, so that none stays a zombie. It uses no
// processor time while nothing dies.
func (o *Observer) Run(ctx context.Context) error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("watch processes: %w", err)
	}
	defer unix.Close(ep)
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch processes: %w", err)
	}
	defer unix.Close(wake)
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, wake, &ev); err != nil {
		return fmt.Errorf("watch processes: %w", err)
	}
	o.mu.Lock()
	o.epoll = ep
	for _, h := range o.handles {
		o.watch(h.p)
	}
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		o.epoll = -1
		o.mu.Unlock()
	}()
	// A stop is an event like any other, so that nothing need be polled.
	stopped := make(chan struct{})
	defer func() { <-stopped }()
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		one := [8]byte{1}
		_, _ = unix.Write(wake, one[:])
	})
	defer func() {
		if stop() {
			close(stopped)
		}
	}()
	var events [64]unix.EpollEvent
	for {
		n, err := unix.EpollWait(ep, events[:], -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("watch processes: %w", err)
		}
		if ctx.Err() != nil {
			return nil
		}
		if n > 0 {
			o.notify()
		}
	}
}

// Close releases the handles, not the processes.
func (o *Observer) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, h := range o.handles {
		h.p.Close()
		delete(o.handles, id)
	}
}
