// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired/scalar"
)

// A signal is understood in every form that people write it in, and kept in one.
func TestStopSignal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		name scalar.Signal
		num  unix.Signal
	}{
		"SIGTERM": {"SIGTERM", unix.SIGTERM}, "TERM": {"SIGTERM", unix.SIGTERM}, "term": {"SIGTERM", unix.SIGTERM}, "sigint": {"SIGINT", unix.SIGINT},
		"15": {"SIGTERM", unix.SIGTERM}, `"15"`: {"SIGTERM", unix.SIGTERM}, "3": {"SIGQUIT", unix.SIGQUIT},
		"SIGRTMIN+3": {"SIGRTMIN+3", 37}, "RTMIN+3": {"SIGRTMIN+3", 37}, "37": {"SIGRTMIN+3", 37}, "SIGRTMIN": {"SIGRTMIN", 34}, "34": {"SIGRTMIN", 34},
		"SIGRTMAX": {"SIGRTMAX", 64}, "SIGRTMAX-1": {"SIGRTMAX-1", 63}, "33": {"33", 33}, "SIGPWR": {"SIGPWR", unix.SIGPWR},
	} {
		docs, ps := Decode("f", []byte(with("stopSignal: "+text)))
		if len(ps) > 0 {
			t.Errorf("%s: %v", text, ps)
			continue
		}
		got := docs[0].Sandbox.Spec.StopSignal
		if got != want.name {
			t.Errorf("%s is kept as %s, expected %s", text, got, want.name)
		}
		if n, err := scalar.ParseSignal(string(got)); err != nil || n != want.num {
			t.Errorf("%s is signal %d (%v), expected %d", got, n, err, want.num)
		}
	}
	for _, text := range []string{"SIGNOPE", "0", "-1", "65", "1.5", "SIGRTMIN+31", "SIGRTMIN+-1", "[TERM]", "{}", "''", "yes", "SIG", "99999999999999999999"} {
		if got := problems(t, with("stopSignal: "+text)); got == "" {
			t.Errorf("%s is taken for a signal", text)
		}
	}
}
