// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A signal is understood in every form that people write it in, and kept in one.
func TestStopSignal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		name Signal
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
		if n, err := ParseSignal(string(got)); err != nil || n != want.num {
			t.Errorf("%s is signal %d (%v), expected %d", got, n, err, want.num)
		}
	}
	for _, text := range []string{"SIGNOPE", "0", "-1", "65", "1.5", "SIGRTMIN+31", "SIGRTMIN+-1", "[TERM]", "{}", "''", "yes", "SIG", "99999999999999999999"} {
		if got := problems(t, with("stopSignal: "+text)); got == "" {
			t.Errorf("%s is taken for a signal", text)
		}
	}
}

func TestRoundUp(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Bytes{
		"1.2Gi": 1288490189, "0.1Ki": 103, "1.5Gi": 1610612736, "100.0000001k": 100001, "1": 1, "0.5": 1, "9223372036854775807": 1<<63 - 1,
	} {
		var b Bytes
		if err := b.UnmarshalJSON([]byte(`"` + text + `"`)); err != nil || b != want {
			t.Errorf("%s is %d (%v), expected %d", text, int64(b), err, int64(want))
		}
	}
	for text, want := range map[string]CPU{"0.0005": 1, "1.0001": 1001, "0.5": 500, "2": 2000} {
		var c CPU
		if err := c.UnmarshalJSON([]byte(text)); err != nil || c != want {
			t.Errorf("%s is %d (%v), expected %d", text, int64(c), err, int64(want))
		}
	}
	for _, text := range []string{"9223372036854775808", "9999999999Ti", "-1", "1e3", "1.2.3", "", "Gi", "1Pib"} {
		if err := new(Bytes).UnmarshalJSON([]byte(`"` + text + `"`)); err == nil {
			t.Errorf("%q is taken for an amount", text)
		}
	}
}
