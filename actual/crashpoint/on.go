// SPDX-License-Identifier: Apache-2.0

//go:build crashpoints

package crashpoint

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
)

// variable names the directory of a run. In it are
//
//	plan     "before POINT N" or "after POINT N": where to die, or nothing;
//	         with "hold " in front of it where to be held
//	trace    every point that was passed, one a line, in the form of plan
//	release  a fifo: what a held process reads
//
// A process is held where another one is to die: at its point it writes "held" into the
// trace and waits for a byte. A gofer is always held: it is pid 1 of its namespace and
// can't kill itself.
const variable = "SANDBOXCTL_CRASHPOINTS"

// gofers is how the names of the points in a gofer begin.
const gofers = "gofer."

// state is opened when the program starts: a gofer in its jail can open nothing.
var state = func() (s struct {
	sync.Mutex
	dir            string
	plan           string
	trace, release int
	hits           map[string]int
},
) {
	s.dir = os.Getenv(variable)
	if s.dir == "" {
		return s
	}
	plan, err := os.ReadFile(s.dir + "/plan")
	if err == nil {
		s.trace, err = syscall.Open(s.dir+"/trace", syscall.O_WRONLY|syscall.O_APPEND|syscall.O_CLOEXEC, 0)
	}
	if err == nil {
		// For both, so that it neither blocks nor ends when nobody has it open.
		s.release, err = syscall.Open(s.dir+"/release", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "crash points: %v\n", err)
		os.Exit(99)
	}
	s.plan, s.hits = strings.TrimSpace(string(plan)), map[string]int{}
	return s
}()

// Before is the moment before a side effect.
func Before(p Point) { hit("before", p) }

// After is the moment after it.
func After(p Point) { hit("after", p) }

// Do makes a side effect between the two.
func Do(p Point, sideEffect func() error) error {
	Before(p)
	err := sideEffect()
	After(p)
	return err
}

// Env is what a child process must have in its environment.
func Env() []string {
	if state.dir == "" {
		return []string{}
	}
	return []string{variable + "=" + state.dir}
}

func hit(when string, p Point) {
	if state.dir == "" {
		return
	}
	state.Lock()
	defer state.Unlock()
	key := when + " " + string(p)
	state.hits[key]++
	line := fmt.Sprintf("%s %d", key, state.hits[key])
	note(line)
	plan, hold := strings.CutPrefix(state.plan, "hold ")
	if line != plan {
		return
	}
	if hold || strings.HasPrefix(string(p), gofers) {
		note("held")
		var b [1]byte
		for {
			if _, err := syscall.Read(state.release, b[:]); err != syscall.EINTR {
				return
			}
		}
	}
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	note(fmt.Sprint("alive: ", err))
	select {} // the signal is on its way; nothing more may happen
}

// note writes a line in one write, so that lines of several processes stay whole.
func note(line string) {
	if _, err := syscall.Write(state.trace, []byte(line+"\n")); err != nil {
		os.Exit(99)
	}
}
