// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// gVisor builds the filter of a sandbox from linux.seccomp, and every rule that
// denies answers with one and the same error. Profiles want more than one: clone3
// must be ENOSYS for the C library to fall back to clone, or no program can start a
// thread. So each error of a profile gets one of gVisor's actions, and the sentry is
// told which error each of those is (wire.FlagErrnos).

// errnoSlots are the actions that can stand for an error. Trap is one only where a
// profile does not mean a signal by it.
var errnoSlots = []specs.LinuxSeccompAction{specs.ActErrno, specs.ActTrace, specs.ActTrap}

// maxErrno is the largest error that a system call can return.
const maxErrno = 4095

// Profile is linux.seccomp for gVisor.
type Profile struct {
	// Spec is nil without a profile.
	Spec *specs.LinuxSeccomp
	// Errnos are the errors of the actions in errnoSlots, in their order.
	Errnos []uint
}

// Translate returns the profile that gVisor builds the asked one's filter
// from. More errors than there are actions for become EPERM.
func Translate(s *specs.LinuxSeccomp) (*Profile, error) {
	if s == nil {
		return &Profile{}, nil
	}
	rules := []answer{{s.DefaultAction, s.DefaultErrnoRet, "defaultAction"}}
	for i := range s.Syscalls {
		c := &s.Syscalls[i]
		rules = append(rules, answer{c.Action, c.ErrnoRet, fmt.Sprintf("syscalls[%d].action", i)})
		for j, arg := range c.Args {
			if arg.Index > 5 {
				return nil, fmt.Errorf("linux.seccomp.syscalls[%d].args[%d].index: expected 0 to 5, got %d", i, j, arg.Index)
			}
		}
	}
	slots := errnoSlots
	for _, r := range rules {
		if r.action == specs.ActTrap {
			slots = errnoSlots[:2]
		}
		if err := r.check(); err != nil {
			return nil, err
		}
	}
	p := &Profile{Spec: &specs.LinuxSeccomp{}, Errnos: errnosOf(rules, len(slots))}
	translated := make([]specs.LinuxSeccompAction, len(rules))
	for i, r := range rules {
		translated[i] = r.translate(p.Errnos)
	}
	p.Spec.DefaultAction = translated[0]
	for i, c := range s.Syscalls {
		if c.Action == specs.ActAllow && s.DefaultAction == specs.ActAllow {
			// gVisor takes the first rule that applies. With other runtimes one that says what
			// holds anyway takes nothing away from a later one that denies.
			continue
		}
		p.Spec.Syscalls = append(p.Spec.Syscalls, specs.LinuxSyscall{Names: c.Names, Action: translated[i+1], Args: c.Args})
	}
	return p, nil
}

// answer is what a rule does.
type answer struct {
	action specs.LinuxSeccompAction
	ret    *uint
	field  string
}

func (a *answer) check() error {
	switch a.action {
	case specs.ActAllow, specs.ActLog, specs.ActTrap, specs.ActKill, specs.ActKillThread, specs.ActKillProcess, specs.ActErrno, specs.ActTrace:
	case specs.ActNotify:
		return fmt.Errorf("linux.seccomp.%s: SCMP_ACT_NOTIFY is not supported: no system call of a sandbox can be handed to a program of the host", a.field)
	default:
		return fmt.Errorf("linux.seccomp.%s: %q is not an action", a.field, a.action)
	}
	if n, ok := a.errno(); ok && n > maxErrno {
		return fmt.Errorf("linux.seccomp.%s: expected an error of at most %d, got %d", a.field, maxErrno, n)
	}
	return nil
}

// errno is the error that a rule answers with, if it does.
func (a *answer) errno() (uint, bool) {
	switch {
	case a.action == specs.ActTrace:
		// What the kernel answers where nobody traces.
		return uint(unix.ENOSYS), true
	case a.action != specs.ActErrno:
		return 0, false
	case a.ret == nil:
		return uint(unix.EPERM), true
	}
	return *a.ret, true
}

// errnosOf are the errors of the rules, those first that matter most.
func errnosOf(rules []answer, most int) (out []uint) {
	asked := []uint{uint(unix.EPERM), uint(unix.ENOSYS)}
	for i := range rules {
		if n, ok := rules[i].errno(); ok && !slices.Contains(asked, n) {
			asked = append(asked, n)
		}
	}
	return asked[:min(len(asked), most)]
}

func (a *answer) translate(errnos []uint) specs.LinuxSeccompAction {
	if n, ok := a.errno(); ok {
		return errnoSlots[max(slices.Index(errnos, n), 0)]
	}
	switch a.action {
	case specs.ActLog:
		return specs.ActAllow
	case specs.ActKillThread, specs.ActKillProcess:
		return specs.ActKill
	default:
		return a.action
	}
}

// JoinErrnos writes errors as the sentry takes them: numbers with commas between them.
func JoinErrnos(numbers []uint) string {
	text := make([]string, len(numbers))
	for i, n := range numbers {
		text[i] = strconv.FormatUint(uint64(n), 10)
	}
	return strings.Join(text, ",")
}
