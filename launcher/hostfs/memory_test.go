// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"fmt"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// A volume in memory has what is to be seen of it: all, a directory, or one file, which is
// mounted on a file.
func TestMemoryTree(t *testing.T) {
	t.Parallel()
	uid, gid := uint32(5), uint32(6)
	all := []setup.MemoryFile{{Name: "a/b/c", Mode: 0o400, Data: []byte("x")}, {Name: "d", Mode: 0o444}}
	for name, c := range map[string]struct {
		src    setup.Source
		at     string
		owners []gofer.Owner
		isDir  bool
	}{
		"all":         {setup.Source{Files: all}, "", nil, true},
		"a file":      {setup.Source{Files: all[:1], SubPath: "a/b/c", Owner: &desired.Ownership{UID: &uid, GID: &gid}}, "a/b/c", []gofer.Owner{{Path: "a/b/c", UID: 5, GID: 6}}, false},
		"a user":      {setup.Source{Files: all, Owner: &desired.Ownership{UID: &uid}}, "", []gofer.Owner{{Path: "a/b/c", UID: 5}, {Path: "d", UID: 5}}, true},
		"a group":     {setup.Source{Files: all[1:], SubPath: "d", Owner: &desired.Ownership{GID: &gid}}, "d", []gofer.Owner{{Path: "d", GID: 6}}, false},
		"a directory": {setup.Source{Files: all[:1], SubPath: "a"}, "a", nil, true},
	} {
		var toGofer, toSentry proc.Donation
		c.src.InMemory, c.src.ReadOnly = "v", true
		served, err := OpenSources([]setup.Source{{Empty: true}, c.src}, nil, &toGofer, &toSentry)
		if err != nil {
			t.Fatal(err)
		}
		m := served.Mounts[1]
		if m.At != c.at || !m.Secret || !m.ReadOnly || fmt.Sprint(m.Tree.Owners) != fmt.Sprint(c.owners) || len(m.Tree.Files) != len(c.src.Files) {
			t.Errorf("%s: %+v", name, m)
		}
		st := &setup.Setup{Containers: []setup.Container{{Overlay: desired.OverlayMemory}}}
		st.App().Spec = &specs.Spec{}
		st.AddBind("/etc/app", c.src)
		if got := served.MountPoints(st)["/etc/app"]; got != c.isDir {
			t.Errorf("%s: the mount point is a directory: %t", name, got)
		}
		toGofer.Close()
		toSentry.Close()
	}
}
