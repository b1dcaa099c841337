// SPDX-License-Identifier: Apache-2.0

package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
)

// A pull by hand speaks to registries as the daemon does, unless it is told otherwise: else
// what somebody tries by hand is not what the daemon does.
func TestRegistriesOfDaemon(t *testing.T) {
	t.Parallel()
	state, file := filepath.Join(t.TempDir(), "s"), filepath.Join(t.TempDir(), "registries.yaml")
	if got := daemonRegistries(state); got != "" {
		t.Errorf("without a state directory: %q", got)
	}
	s, err := actual.OpenStore(state)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := daemonRegistries(state); got != "" {
		t.Errorf("without a daemon: %q", got)
	}
	if err := s.Lock(); err != nil {
		t.Fatal(err)
	}
	if err := s.PutDaemonInfo(&actual.DaemonInfo{Registries: file}); err != nil {
		t.Fatal(err)
	}
	if got := daemonRegistries(state); got != file {
		t.Errorf("%q, expected %q", got, file)
	}
	// A file of its own that is wrong is told by a pull.
	if err := os.WriteFile(file, []byte("registries: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := &Verbs{State: state, Stdout: os.Stderr, Stderr: os.Stderr}
	cmd := v.Command()
	cmd.SetArgs([]string{"pull", "127.0.0.1:1/web:1"})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("%v, expected it to name %s", err, file)
	}
}
