// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// On a host with systemd a cgroup that it does not know goes when it is empty,
// also between its creation and the first process. The goroutine that removes them here does
// it all the time, with every group of the containers in every hierarchy and the
// one above.
func TestTrimmedCgroups(t *testing.T) {
	c := newClient(t)
	top := fmt.Sprintf("sbctl-trim-%d", os.Getpid())
	bundle := filepath.Join(c.work, "b")
	must(t, os.MkdirAll(bundle, 0o755))
	must(t, os.WriteFile(filepath.Join(bundle, "config.json"), fmt.Appendf(nil, `{"ociVersion":"1.0.2","root":{"path":%q,"readonly":true},
"process":{"args":["/bin/busybox","true"],"cwd":"/","user":{"uid":0,"gid":0}},"mounts":[{"destination":"/proc","type":"proc","source":"proc"}],
"linux":{"cgroupsPath":"/%s/x","resources":{"pids":{"limit":500},"memory":{"limit":268435456}},"namespaces":[{"type":"network"},{"type":"pid"}]}}`, filepath.Join(c.work, "rootfs"), top), 0o644))
	mounts, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	must(t, err)
	mounts = append(mounts, "/sys/fs/cgroup/cgroup.procs")
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-done:
				return
			default:
			}
			for _, m := range mounts {
				_ = unix.Rmdir(filepath.Join(filepath.Dir(m), top, "x"))
				_ = unix.Rmdir(filepath.Join(filepath.Dir(m), top))
			}
		}
	}()
	defer func() { close(done); <-over }()
	for i := range 15 {
		if out, code := c.sh("$RUNTIME run --bundle b x </dev/null"); code != 0 {
			t.Errorf("run %d ended with %d: %s", i, code, out)
		}
	}
}
