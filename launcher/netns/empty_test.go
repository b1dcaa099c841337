// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
)

// However many ask, also at the same time, there is one empty namespace: no interface
// of it is up, it is not the host's, and no thread of the caller stays in it.
func TestEmpty(t *testing.T) {
	hosttest.NeedsRoot(t, "making a network namespace needs root")
	inodes := make([]uint64, 20)
	var all sync.WaitGroup
	for i := range inodes {
		all.Go(func() {
			n, err := Empty()
			if err == nil {
				inodes[i], err = n.Inode()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, ino := range inodes {
		if ino != inodes[0] {
			t.Errorf("several namespaces: %v", inodes)
		}
	}
	n, err := Empty()
	if err != nil {
		t.Fatal(err)
	}
	if own, err := n.IsOwn(); err != nil || own {
		t.Errorf("it is the host's: %v", err)
	}
	if err := n.Do(func() error {
		interfaces, err := net.Interfaces()
		for _, i := range interfaces {
			if i.Name != "lo" || i.Flags&net.FlagUp != 0 {
				t.Errorf("interface %s: %s", i.Name, i.Flags)
			}
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		var st unix.Stat_t
		if err := unix.Stat("/proc/self/task/"+thread.Name()+"/ns/net", &st); err == nil && st.Ino == inodes[0] {
			t.Errorf("thread %s is in it", thread.Name())
		}
	}
}
