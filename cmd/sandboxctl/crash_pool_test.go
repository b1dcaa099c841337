// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/actual"
)

// pool is the manifest of a pool whose sandboxes write a word, and of a claim of it.
func (w *crashWorld) pool(word string) {
	w.Helper()
	text := fmt.Sprintf(`apiVersion: sandboxctl.dev/v1alpha1
kind: SandboxPool
metadata: {name: words}
spec:
  max: 1
  template:
    root: {dir: %s}
    command: [/bin/sh, -c, 'echo %s$MORE >> /data/runs; exec /bin/busybox sleep 100000']
    volumes: [{name: data, mountPath: /data, hostPath: %s}]
    terminationGracePeriod: 0s
---
apiVersion: sandboxctl.dev/v1alpha1
kind: SandboxClaim
metadata: {name: web}
spec: {pool: words, env: [{name: MORE, value: -claimed}], ttl: 1h}
`, w.path("root"), word, w.path("data"))
	must(w.T, os.WriteFile(w.path("m/.pool"), []byte(text), 0o644))
	must(w.T, os.Rename(w.path("m/.pool"), w.path("m/pool.yaml")))
}

// A daemon that is killed while it makes the sandbox of a claim leaves the claim bound or not, and
// nothing between: with a record the sandbox is what it was about to be, although the template is
// another one when the next daemon comes; without one it is of the template of then. It runs once.
func TestCrashClaim(t *testing.T) {
	requireHost(t)
	_, err := crashable()
	must(t, err)
	for at, want := range map[string]string{
		"before claim": "new-claimed", "before record-put": "new-claimed", "after record-put": "old-claimed", "after sentry-gate": "old-claimed", "after start-root": "old-claimed",
	} {
		t.Run(strings.ReplaceAll(at, " ", "_"), func(t *testing.T) {
			t.Parallel()
			w := newCrashWorld(t)
			w.pool("old")
			if trace, killed := w.armed(momentOf(at), false); !killed {
				t.Fatalf("the daemon was not killed; it went through %v", trace)
			}
			w.pool("new")
			w.converge()
			rec := w.rec()
			if rec == nil || rec.Phase != actual.PhaseRunning || !strings.Contains(string(rec.Spec), "sandboxctl.dev/claim") {
				t.Fatalf("the record is %+v", rec)
			}
			w.until("the application has written", func() bool { return w.runs() != "" })
			w.converge()
			time.Sleep(100 * time.Millisecond) // a second one would have written by now
			if got := w.runs(); got != want {
				t.Errorf("it has written %q, expected %q", got, want)
			}
			w.settled()
		})
	}
}
