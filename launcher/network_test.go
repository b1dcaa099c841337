// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/proc/proctest"
)

// Only plugins of CNI that take long have an operation give up its worker: else as many starts
// as there are manifests would run at once.
func TestPluginsKeepWorker(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "plugins of CNI are run that are root's")
	dir := t.TempDir()
	for name, wait := range map[string]string{"quick": "0", "slow": "3"} {
		if err := proctest.WriteProgram(filepath.Join(dir, name), []byte("#!/bin/sh\nsleep "+wait+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	policy := hostpolicy.Default()
	policy.Network.CNI = hostpolicy.CNIPolicy{PluginDirs: []string{dir}, Timeout: new(scalar.Duration(time.Minute))}
	l := &Launcher{opts: Options{Policy: func() (*hostpolicy.Policy, error) { return policy, nil }}}
	for plugin, slow := range map[string]bool{"quick": false, "slow": true} {
		var waits atomic.Bool
		ctx, cancel := operation.New(t.Context(), func() { waits.Store(true) })
		defer cancel(nil)
		uid := actual.NewUID()
		began := time.Now()
		err := l.unplug(ctx, &actual.Record{CNI: &actual.CNI{
			Network: "lab", Config: []byte(`{"cniVersion": "1.0.0", "name": "lab", "plugins": [{"type": "` + plugin + `"}]}`),
			Interface: "eth0", ContainerID: uid + "-1", Netns: netns.Dir + "/cni-" + uid,
		}})
		took := time.Since(began)
		if err != nil || waits.Load() != slow && (slow || took < time.Second) {
			t.Errorf("%s: %v after %s, gives up its worker: %v", plugin, err, took, waits.Load())
		}
	}
}
