// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
)

// hastening says that a Hasten is under way, which is enough for everybody.
var hastening atomic.Bool

// Hasten has the kernel wait now for what the first move of a process to another group waits
// for: a grace period of RCU, about 10 ms, after which moves are cheap for as long again. A
// start that will move processes calls it before it opens its files, so that it waits for less
// of that. It moves nothing: this process is put into the group that it is in. It returns at
// once, and that it can't be done is of no consequence.
func (h *Host) Hasten() {
	if !hastening.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer hastening.Store(false)
		b, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			return
		}
		for line := range strings.Lines(string(b)) {
			mount, group := h.member(line)
			if mount == "" {
				continue
			}
			if dir, err := os.Open(path.Join(mount, group)); err == nil {
				_ = writeFile(int(dir.Fd()), "cgroup.procs", strconv.Itoa(os.Getpid()))
				dir.Close()
				return // one lock is for all hierarchies
			}
		}
	}()
}
