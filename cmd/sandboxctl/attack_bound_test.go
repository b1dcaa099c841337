// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// boundTraps: what is never shared, mounted into the allowed path. What was
// mounted may be unmounted, so all of these are tried again.
func (h *attackHost) boundTraps(t *testing.T, add func(name, path, want string, heals bool)) {
	t.Helper()
	mount := func(source, at, fstype string, flags uintptr, data string) {
		h.must(unix.Mount(source, at, fstype, flags, data))
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	}
	dir := func(name string) string {
		p := filepath.Join(h.allowed, "bound", strings.ReplaceAll(name, " ", "-"))
		h.must(os.MkdirAll(p, 0o755))
		return p
	}
	own := ", which is sandboxctl's own and never shared with a sandbox"
	state := h.store.Path()
	for name, source := range map[string]string{
		"state": state, "sandboxes": filepath.Join(state, "sandboxes"), "manifests": h.manifests,
	} {
		at := dir(name)
		mount(source, at, "", unix.MS_BIND, "")
		add("bound "+name, at, "it is part of ", true)
		above := dir(name + " below")
		h.must(os.MkdirAll(above+"/a/b", 0o755))
		mount(source, above+"/a/b", "", unix.MS_BIND, "")
		add("bound below "+name, above, above+"/a/b is mounted there, and it is part of ", true)
	}
	parent := dir("parent")
	mount(h.work, parent, "", unix.MS_BIND, "")
	add("bound parent", parent, "it holds "+state+own, true)
	again := dir("again")
	mount(filepath.Join(parent, filepath.Base(state)), again, "", unix.MS_BIND, "")
	add("bound again", again, "it is part of "+state+own, true)
	lower := dir("lower")
	mount("overlay", lower, "overlay", 0, "lowerdir="+state+":"+h.manifests)
	add("overlay of the state", lower, "it is part of ", true)
}
