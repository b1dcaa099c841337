// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// systemd, a client or a person may remove a group at any moment, also between our open of a
// file in it and the write: the kernel answers that with ENODEV. What is gone needs no kill, no
// thaw and no count, so none of them may fail.
func TestRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if h.v2 == "" || os.Geteuid() != 0 {
		hosttest.Lacks(t, "no cgroup2 that this test may write")
	}
	at := filepath.Join(h.v2, fmt.Sprintf("sbctl-removed-%d", os.Getpid()))
	t.Cleanup(func() { _ = unix.Rmdir(at) })
	for what, do := range map[string]func(*Group) error{
		"kill":      (*Group).Kill,
		"thaw":      (*Group).Thaw,
		"oom kills": func(g *Group) error { _, err := g.OOMKills(); return err },
		"processes": func(g *Group) error { _, err := g.PIDs(); return err },
		"frozen":    func(g *Group) error { _, err := g.FrozenBy(); return err },
	} {
		for range 500 {
			if err := os.Mkdir(at, 0o755); err != nil {
				t.Fatal(err)
			}
			self, err := os.Open(at)
			if err != nil {
				t.Fatal(err)
			}
			removed := make(chan error)
			go func() { removed <- unix.Rmdir(at) }()
			err = do(&Group{dirs: []*dir{{path: at, self: self}}})
			if err := <-removed; err != nil {
				t.Fatal(err)
			}
			self.Close()
			if err != nil {
				t.Errorf("%s: %v", what, err)
				break
			}
		}
	}
}
