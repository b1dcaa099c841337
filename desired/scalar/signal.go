// SPDX-License-Identifier: Apache-2.0

package scalar

import (
	"fmt"
	"strconv"

	"github.com/moby/sys/signal"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired/yamldoc"
)

// Signal is the name of a signal: SIGTERM, or SIGRTMIN+3 for a realtime one.
type Signal string

// UnmarshalJSON reads "SIGTERM", "term", "15", 15 or "SIGRTMIN+3".
func (s *Signal) UnmarshalJSON(b []byte) error {
	const want = "expected a signal such as SIGTERM, TERM, 15 or SIGRTMIN+3"
	text, err := word(b)
	if err != nil {
		return fmt.Errorf("%s, got %s", want, b)
	}
	n, err := ParseSignal(text)
	if err != nil {
		return fmt.Errorf("%s, got %q", want, yamldoc.Clip(text))
	}
	*s = nameOfSignal(n)
	return nil
}

// ParseSignal reads the name or the number of a signal, with or without SIG and
// in either case. Realtime signals count from the SIGRTMIN of the C library (34).
func ParseSignal(s string) (unix.Signal, error) {
	n, err := signal.ParseSignal(s)
	if err != nil || n <= 0 || int(n) > sigRTMax {
		return 0, fmt.Errorf("unknown signal %q", yamldoc.Clip(s))
	}
	return n, nil
}

// The realtime signals that a C library leaves to applications. They are counted
// from both ends.
const (
	sigRTMin    = 34
	sigRTMiddle = 49
	sigRTMax    = 64
)

func nameOfSignal(n unix.Signal) Signal {
	if name := unix.SignalName(n); name != "" {
		return Signal(name)
	}
	switch n := int(n); {
	case n == sigRTMin:
		return "SIGRTMIN"
	case n == sigRTMax:
		return "SIGRTMAX"
	case n > sigRTMiddle:
		return Signal("SIGRTMAX-" + strconv.Itoa(sigRTMax-n))
	case n > sigRTMin:
		return Signal("SIGRTMIN+" + strconv.Itoa(n-sigRTMin))
	default:
		return Signal(strconv.Itoa(n)) // 32 and 33 are the C library's own
	}
}
