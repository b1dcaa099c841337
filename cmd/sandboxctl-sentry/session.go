// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/eventfd"
	"gvisor.dev/gvisor/pkg/fd"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"

	"sandboxctl.dev/cmd/sandboxctl-sentry/application"
	"sandboxctl.dev/cmd/sandboxctl-sentry/clientwork"
	"sandboxctl.dev/launcher/wire"
)

// sessions ends what a client has started when the client's end of its socket is
// closed. It lives in the sentry because the kernel of the host closes the socket
// of a client that was killed, whatever else was killed with it.
//
// One thread waits for all sockets: a sandbox with a limit of processes must not
// run out of threads because it has many commands.
type sessions struct {
	current *currentKernel
	// environment is that of the application, nil before it is known.
	environment atomic.Pointer[[]string]

	mu   sync.Mutex
	open []*session
	wake *eventfd.Eventfd
	// lost are the sessions whose client ended before it named its command.
	lost []*session
	// claimed are the commands that a client has named or hangUp ends.
	claimed map[*kernel.ThreadGroup]bool
}

const (
	// lostLimit is how long the start of a command may take after its client has
	// ended.
	lostLimit = 30 * time.Second
	lostPoll  = 50 * time.Millisecond
)

// session is one client and its command.
type session struct {
	socket int
	// before are the commands that were there when it was opened.
	before map[*kernel.ThreadGroup]bool
	// named says that the client has told which command is its own; command is nil
	// if that had ended by then.
	named   bool
	command *kernel.ThreadGroup
	closed  time.Time
	line    []byte
}

// sink is what gVisor wants of a trace session. It traces nothing.
type sink struct {
	seccheck.SinkDefaults
	name string
}

func (s *sink) Name() string { return s.name }

// register makes the sinks known to gVisor's control server.
func (s *sessions) register() {
	c := &clients{work: clientwork.NewGroup(mostWork), copies: clientwork.NewGroup(mostCopies)}
	for name, serve := range map[string]func(k *kernel.Kernel, config map[string]any, socket int) error{
		wire.SessionSink: s.add, wire.StatesSink: writeStates, wire.EnvironmentSink: s.writeEnvironment,
		wire.ForwardSink: c.forward, wire.QuietSink: c.quiet, wire.CopyOutSink: c.copyOut, wire.CopyInSink: c.copyIn,
		wire.NumbersSink: writeNumbers,
	} {
		seccheck.RegisterSink(seccheck.SinkDesc{Name: name, New: func(config map[string]any, endpoint *fd.FD) (seccheck.Sink, error) {
			if endpoint == nil {
				return nil, errors.New("no socket")
			}
			k := s.current.Load()
			if k == nil {
				return nil, errors.Join(errors.New("the application has not been started"), endpoint.Close())
			}
			if err := serve(k, config, endpoint.Release()); err != nil {
				return nil, err
			}
			return &sink{name: name}, nil
		}})
	}
}

func (s *sessions) add(k *kernel.Kernel, _ map[string]any, socket int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wake == nil {
		ev, err := eventfd.Create()
		if err != nil {
			return errors.Join(err, unix.Close(socket))
		}
		s.wake = &ev
		s.claimed = map[*kernel.ThreadGroup]bool{}
		go s.watch()
	}
	n := &session{socket: socket, before: map[*kernel.ThreadGroup]bool{}}
	for _, tg := range commands(k) {
		n.before[tg] = true
	}
	s.open = append(s.open, n)
	return s.wake.Notify()
}

// watch waits for what clients write, and for their end.
func (s *sessions) watch() {
	for {
		s.mu.Lock()
		waited := append([]*session(nil), s.open...)
		fds := []unix.PollFd{{Fd: int32(s.wake.FD()), Events: unix.POLLIN}}
		s.mu.Unlock()
		for _, n := range waited {
			fds = append(fds, unix.PollFd{Fd: int32(n.socket), Events: unix.POLLIN})
		}
		var timeout *unix.Timespec
		if s.endUnclaimed() {
			timeout = &unix.Timespec{Nsec: lostPoll.Nanoseconds()}
		}
		if _, err := unix.Ppoll(fds, timeout, nil); err != nil {
			if !errors.Is(err, unix.EINTR) {
				log.Warningf("wait for sessions: %v", err)
			}
			continue
		}
		if fds[0].Revents != 0 {
			_ = s.wake.Wait() // its count says nothing
		}
		for i, n := range waited {
			if fds[i+1].Revents != 0 {
				s.read(n)
			}
		}
	}
}

// read takes the number of a command, or the end of its client.
func (s *sessions) read(n *session) {
	k := s.current.Load()
	var buf [32]byte
	c, err := unix.Read(n.socket, buf[:])
	if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
		return
	}
	if c > 0 && !n.named && len(n.line) < len(buf) {
		n.line = append(n.line, buf[:c]...)
		if number, _, whole := bytes.Cut(n.line, []byte("\n")); whole {
			if pid, err := strconv.ParseInt(string(number), 10, 32); err == nil {
				s.name(n, k.RootPIDNamespace().ThreadGroupWithID(kernel.ThreadID(pid)))
			}
		}
		return
	}
	if c > 0 {
		return // a client that says more than it should
	}
	s.close(k, n)
}

func (s *sessions) name(n *session, command *kernel.ThreadGroup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n.named, n.command, n.before = true, command, nil
	if command != nil {
		s.claimed[command] = true
	}
}

// close ends the command of a client that is gone. One that has not named its
// command may have been killed at any moment of its start.
func (s *sessions) close(k *kernel.Kernel, n *session) {
	_ = unix.Close(n.socket)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = slices.DeleteFunc(s.open, func(o *session) bool { return o == n })
	switch {
	case n.command != nil:
		go hangUp(k, n.command)
	case !n.named:
		n.closed = time.Now()
		s.lost = append(s.lost, n)
	}
}

// endUnclaimed ends the commands of clients that ended before they named them.
// gVisor may start such a command later than that: it returns true as long as one
// may come.
func (s *sessions) endUnclaimed() (wait bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = slices.DeleteFunc(s.lost, func(n *session) bool { return time.Since(n.closed) > lostLimit })
	maps.DeleteFunc(s.claimed, func(tg *kernel.ThreadGroup, _ bool) bool { return !lives(tg) })
	if len(s.lost) == 0 {
		return false
	}
	if slices.ContainsFunc(s.open, func(o *session) bool { return !o.named }) {
		return true // it may be the command of this one
	}
	k := s.current.Load()
	for _, tg := range unclaimed(commands(k), s.claimed, s.lost) {
		if lives(tg) {
			s.claimed[tg] = true
			go hangUp(k, tg)
		}
	}
	return true
}

// unclaimed are the commands that no client has named and that a lost session may
// have started. Which of the lost sessions that was does not matter: to pair them
// would let one session take the command of another, which would then run on.
func unclaimed(all []*kernel.ThreadGroup, claimed map[*kernel.ThreadGroup]bool, lost []*session) []*kernel.ThreadGroup {
	return slices.DeleteFunc(all, func(tg *kernel.ThreadGroup) bool {
		return claimed[tg] || !slices.ContainsFunc(lost, func(n *session) bool { return !n.before[tg] })
	})
}

// commands are the processes that were started from outside, beside the application.
// They have no parent; what they have started has their origin too, and has one.
func commands(k *kernel.Kernel) (out []*kernel.ThreadGroup) {
	for _, tg := range k.RootPIDNamespace().ThreadGroups() {
		if t := tg.Leader(); t.Origin == kernel.OriginExec && t.Parent() == nil {
			out = append(out, tg)
		}
	}
	return out
}

// writeStates writes the state of every process.
func writeStates(k *kernel.Kernel, _ map[string]any, socket int) error {
	pids := k.RootPIDNamespace()
	states := wire.States{}
	for _, tg := range pids.ThreadGroups() {
		if pid := pids.IDOfThreadGroup(tg); pid != 0 {
			states[int32(pid)] = state(tg)
		}
	}
	return answer(socket, states)
}

// writeNumbers writes which numbers the sandbox has for its processes.
func writeNumbers(k *kernel.Kernel, _ map[string]any, socket int) error {
	return answer(socket, application.Numbers(k))
}

// writeEnvironment writes what the application was started with. Commands are started
// with the same: no file has all of it.
func (s *sessions) writeEnvironment(_ *kernel.Kernel, _ map[string]any, socket int) error {
	env := s.environment.Load()
	if env == nil {
		return errors.Join(errors.New("the application has not been started"), unix.Close(socket))
	}
	return answer(socket, *env)
}

// answer writes a value and closes the socket. It does not keep gVisor's control server
// waiting for a client that does not read.
func answer(socket int, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return errors.Join(fmt.Errorf("encode answer: %w", err), unix.Close(socket))
	}
	go func() {
		f := os.NewFile(uintptr(socket), "answer")
		_, _ = f.Write(b) // the client may be gone
		_ = f.Close()
	}()
	return nil
}

// state is that of the first thread; a process whose first thread alone has ended
// is what its others are.
func state(tg *kernel.ThreadGroup) (letter string) {
	tg.ForEachTask(func(t *kernel.Task) bool {
		if t.ExitState() == kernel.TaskExitNone {
			letter = t.StateStatus()[:1]
			return false
		}
		return true
	})
	if letter == "" {
		letter = tg.Leader().StateStatus()[:1]
	}
	return letter
}
