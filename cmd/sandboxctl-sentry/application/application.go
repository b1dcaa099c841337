// SPDX-License-Identifier: Apache-2.0

// Package application finds the application of a sandbox, which is the first container of its
// kernel, or a second one beside launcher/pause, and sees to its end in the latter case: the
// kernel ends with it, as it does with the first container.
package application

import (
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/kernel"

	"sandboxctl.dev/launcher/wire"
)

// Of is the first process of the application, nil if it has not been started or has ended and
// is not the first container.
func Of(k *kernel.Kernel) *kernel.ThreadGroup {
	first := k.GlobalInit()
	if first == nil || first.Leader() == nil || first.Leader().ContainerID() != wire.PauseContainer {
		return first
	}
	for _, tg := range k.RootPIDNamespace().ThreadGroups() {
		if t := tg.Leader(); t != nil && t.Origin != kernel.OriginExec && t.ContainerID() != wire.PauseContainer && t.Parent() == nil {
			return tg
		}
	}
	return nil
}

// Numbers are the numbers that the sandbox has for its threads, processes and groups of
// processes, by those that gVisor tells: empty if they are the same.
func Numbers(k *kernel.Kernel) wire.Numbers {
	out := wire.Numbers{}
	app := Of(k)
	if app == nil || app == k.GlobalInit() {
		return out
	}
	outer, inner := k.RootPIDNamespace(), app.PIDNamespace()
	for _, tg := range outer.ThreadGroups() {
		if n := inner.IDOfThreadGroup(tg); n != 0 {
			out[int32(outer.IDOfThreadGroup(tg))] = int32(n)
		}
		if g := tg.ProcessGroup(); g != nil {
			if n := inner.IDOfProcessGroup(g); n != 0 {
				out[int32(outer.IDOfProcessGroup(g))] = int32(n)
			}
		}
		tg.ForEachTask(func(t *kernel.Task) bool {
			if n := inner.IDOfTask(t); n != 0 {
				out[int32(outer.IDOfTask(t))] = int32(n)
			}
			return true
		})
	}
	delete(out, 0)
	return out
}

// Second is an application that is started beside the first container.
type Second struct {
	// id is the name of its container, nil before it has one.
	id    atomic.Pointer[string]
	first chan *kernel.Task
	group atomic.Pointer[kernel.ThreadGroup]
	ended atomic.Bool
}

// NewSecond returns one that is not known yet.
func NewSecond() *Second { return &Second{first: make(chan *kernel.Task, 1)} }

// Is says which container it is.
func (s *Second) Is(id string) { s.id.Store(&id) }

// Created notes the first task of the container. It is called with locks of the kernel held,
// for each task before that begins: an application may have ended by the time that anybody
// could look for it.
func (s *Second) Created(t *kernel.Task) {
	if id := s.id.Load(); id != nil && t.ContainerID() == *id {
		select {
		case s.first <- t:
		default: // it is not the first one
		}
	}
}

// End waits for the end of the application, and ends the kernel with its status. What it has
// left behind ends too.
func (s *Second) End() {
	t := <-s.first
	tg := t.ThreadGroup()
	s.group.Store(tg)
	// Between the two there is its seccomp profile at most. To wait for the end of what has
	// not begun would be over at once.
	for pause := startPoll; t.TaskGoroutineState() == kernel.TaskGoroutineNonexistent && t.ExitState() == kernel.TaskExitNone; pause = min(2*pause, maxPoll) {
		<-time.After(pause)
	}
	tg.WaitExited()
	s.ended.Store(true)
	t.Kernel().Kill(tg.ExitStatus())
}

const (
	startPoll = 50 * time.Microsecond
	maxPoll   = 20 * time.Millisecond
)

// Ended says whether the application has ended, and the kernel with it.
func (s *Second) Ended() bool { return s.ended.Load() }

// Signal passes on to the application what the sentry was sent, which gVisor sends to the
// first container.
func (s *Second) Signal(sig int32) {
	if tg := s.group.Load(); tg != nil {
		// It may have ended.
		_ = tg.Leader().Kernel().SendExternalSignalThreadGroup(tg, &linux.SignalInfo{Signo: sig})
	}
}
