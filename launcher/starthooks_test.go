// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/guest"
)

// What the sandbox says of its hooks is the sandbox's word: bounded, harmless to
// a terminal, and never taken for more than that it has failed.
func TestWaitStart(t *testing.T) {
	t.Parallel()
	st := &setup{startHooks: &bundleHooks{}}
	for said, want := range map[string]string{
		guest.Passed:                    "",
		"":                              "ended before",
		"no \x1b[31m":                   "no  [31m",
		guest.Passed + "no application": "no application",
		strings.Repeat("x", 5000):       strings.Repeat("x", maxStartReport),
	} {
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		// Twice: the pipe of the attempt before is in the way.
		var w *os.File
		for range 2 {
			w.Close()
			if w, err = makeStartReport(int(dir.Fd())); err != nil {
				t.Fatal(err)
			}
		}
		r, err := openStartReportIn(int(dir.Fd()), os.O_RDONLY)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("out of time"))
		if err := st.waitStart(ctx, r); err == nil || !strings.Contains(err.Error(), "out of time") {
			t.Errorf("an open pipe: %v", err)
		}
		cancel()
		if _, err := w.WriteString(said); err != nil {
			t.Fatal(err)
		}
		w.Close()
		err = st.waitStart(t.Context(), r)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, expected %.20q", said, err, want)
		}
		if err != nil && len(err.Error()) > maxStartReport+10 {
			t.Errorf("%d bytes", len(err.Error()))
		}
	}
}

func TestStartTimeout(t *testing.T) {
	t.Parallel()
	ten := 10
	st := &setup{}
	if st.startTimeout() != 0 {
		t.Error("no hooks need no time")
	}
	cfg := &specs.Spec{Hooks: &specs.Hooks{StartContainer: []specs.Hook{{Path: "/a", Timeout: &ten}, {Path: "/b"}}}}
	if err := st.addStartHooks(cfg, "/b"); err != nil || st.startTimeout() != 10*time.Second+guest.DefaultTimeout {
		t.Errorf("%s %v", st.startTimeout(), err)
	}
}
