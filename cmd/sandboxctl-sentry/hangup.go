// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

const (
	// hangUpGrace is how long a command may take to end by itself when its client
	// is gone.
	hangUpGrace = 2 * time.Second
	// hangUpLimit bounds how long a command that can't be ended is tried.
	hangUpLimit = time.Minute
	hangUpPoll  = 20 * time.Millisecond
)

// hangUp ends a command whose client is gone, and what it has started: its
// session, and its descendants that have one of their own. They get SIGHUP, as
// from a terminal that was closed, and SIGKILL if they do not end. What a command
// that has ended by itself left in the background is not touched.
func hangUp(k *kernel.Kernel, command *kernel.ThreadGroup) {
	session := command.Session()
	if !lives(command) || session == nil {
		return
	}
	m := &members{kernel: k, session: session, groups: map[*kernel.ThreadGroup]bool{command: true}}
	m.grow()
	m.signal(linux.SIGHUP)
	m.signal(linux.SIGCONT) // one that is stopped gets nothing else
	again := time.NewTicker(hangUpPoll)
	defer again.Stop()
	for begin := time.Now(); time.Since(begin) < hangUpLimit; <-again.C {
		// Also when all have ended: the last may have forked before its signal came.
		m.grow()
		if !m.live() {
			return
		}
		if time.Since(begin) > hangUpGrace {
			m.signal(linux.SIGKILL)
		}
	}
}

// members are the processes that end with a command.
type members struct {
	kernel  *kernel.Kernel
	session *kernel.Session
	groups  map[*kernel.ThreadGroup]bool
}

// grow finds members until there are no more: they fork meanwhile.
func (m *members) grow() {
	all := m.kernel.RootPIDNamespace().ThreadGroups()
	for found := true; found; {
		found = false
		for _, tg := range all {
			if m.groups[tg] || !m.belongs(tg) {
				continue
			}
			m.groups[tg] = true
			found = true
		}
	}
}

func (m *members) belongs(tg *kernel.ThreadGroup) bool {
	if tg.Session() == m.session {
		return true
	}
	parent := tg.Leader().Parent()
	return parent != nil && m.groups[parent.ThreadGroup()]
}

func (m *members) signal(sig linux.Signal) {
	for tg := range m.groups {
		if lives(tg) {
			// It may end meanwhile.
			_ = m.kernel.SendExternalSignalThreadGroup(tg, &linux.SignalInfo{Signo: int32(sig)})
		}
	}
}

func (m *members) live() bool {
	for tg := range m.groups {
		if lives(tg) {
			return true
		}
	}
	return false
}

// lives says whether any thread of a process has not ended.
func lives(tg *kernel.ThreadGroup) (alive bool) {
	tg.ForEachTask(func(t *kernel.Task) bool {
		alive = t.ExitState() == kernel.TaskExitNone
		return !alive
	})
	return alive
}
