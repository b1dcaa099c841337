// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
)

// built is the set-up of a manifest with these fields.
func built(t *testing.T, policy *hostpolicy.Policy, root string, fields ...string) *Setup {
	t.Helper()
	text := "apiVersion: sandboxctl.dev/v1alpha1\nkind: Sandbox\nmetadata: {name: web}\nspec:\n  root: " + root + "\n"
	if !strings.Contains(root, "bundle") { // whose command it is
		text += "  command: [sh]\n"
	}
	for _, f := range fields {
		text += "  " + f + "\n"
	}
	docs, problems := desired.Decode("f.yaml", []byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	img := &Image{ImageSource: ImageSource{Ref: "docker.io/library/a:1", Digest: "sha256:aa"}}
	st, err := FromManifest(docs[0].Sandbox, policy, img, func(*Source) (*specs.Spec, error) {
		return container(func(c *specs.Spec) { c.Root.Path = "rootfs" }), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// What is on the disk has a size in what the sentry is told, also where nobody has said
// one: without it a guest fills the disk of the state.
func TestDiskSizes(t *testing.T) {
	t.Parallel()
	policy := hostpolicy.Default()
	policy.DefaultDiskSize = 5 << 20
	const dir, image = "{dir: /srv/sandboxctl/r}", "{image: {ref: a}}"
	for name, c := range map[string]struct {
		root   string
		fields []string
		confs  string
		places string // with the default of the policy
		nobody string // without a policy
	}{
		"nothing":           {dir, nil, "lisafs:memory", "", ""},
		"none":              {dir, []string{"overlay: none"}, "lisafs:none", "", ""},
		"overlay":           {dir, []string{"overlay: disk"}, "lisafs:anon:size=5242880", "=5242880", "=1073741824"},
		"overlay of host":   {"{host: {}}", []string{"overlay: disk", "overlaySize: 2Mi"}, "lisafs:anon:size=2097152", "=2097152", "=2097152"},
		"overlay of image":  {image, []string{"overlay: disk", "overlaySize: 2Mi"}, "erofs:anon:size=2097152", "=2097152", "=2097152"},
		"read-only image":   {image, []string{"overlay: none"}, "erofs:memory", "", ""},
		"image":             {image, nil, "erofs:memory", "", ""},
		"in memory":         {image, []string{"overlaySize: 3Mi", "volumes: [{name: a, mountPath: /a, emptyDir: {medium: memory}}]"}, "erofs:memory:size=3145728", "", ""},
		"in memory, of dir": {dir, []string{"overlay: memory", "overlaySize: 3Mi"}, "lisafs:memory:size=3145728", "", ""},
		"overlay of bundle": {"{bundle: /srv/sandboxctl/b}", []string{"overlay: disk"}, "lisafs:anon:size=5242880", "=5242880", "=1073741824"},
		"volumes": {
			dir,
			[]string{"overlay: disk", "volumes: [{name: a, mountPath: /a, hostPath: /srv/sandboxctl/x}, {name: b, mountPath: /b, emptyDir: {size: 3Mi}}, {name: t, mountPath: /t, tmpfs: {}}, {name: c, mountPath: /c, config: {data: {x: text}}}, {name: d, mountPath: /d, emptyDir: {}}]"},
			"lisafs:anon:size=5242880,lisafs:none,none:anon,lisafs:none,none:anon", "=5242880 b=3145728 d=5242880", "=1073741824 b=3145728 d=1073741824",
		},
	} {
		for _, p := range []*hostpolicy.Policy{policy, nil} {
			st, want := built(t, p, c.root, c.fields...), c.places
			if p == nil {
				want = c.nobody
			}
			var places []string
			for _, on := range st.OnDisk() {
				places = append(places, fmt.Sprintf("%s=%d", on.Volume, on.Size))
			}
			if got := strings.Join(places, " "); got != want {
				t.Errorf("%s: %s, expected %s", name, got, want)
			}
			if got := st.MountConfs(); p != nil && got != c.confs {
				t.Errorf("%s: %s, expected %s", name, got, c.confs)
			}
			checkMounts(t, name, st)
		}
	}
}

// checkMounts compares the options of the mounts with the sizes that are promised.
func checkMounts(t *testing.T, name string, st *Setup) {
	t.Helper()
	mounts, sizes := st.WithDiskSizes(st.App().Spec.Mounts), map[string]int64{}
	for _, on := range st.OnDisk() {
		sizes[on.Volume] = on.Size
	}
	n := 0
	for i, m := range mounts {
		if !IsBind(m) {
			continue
		}
		if d := st.App().Volumes[n].Disk; d != nil {
			if !slices.Contains(m.Options, sizeOption(sizes[d.Volume])) || !slices.Contains(m.Options, "mode=0777") {
				t.Errorf("%s: %s has the options %v, expected a size of %d", name, m.Destination, m.Options, sizes[d.Volume])
			}
			// A default is no part of what a checkpoint is compared with.
			if described := slices.ContainsFunc(st.App().Spec.Mounts[i].Options, func(o string) bool { return strings.HasPrefix(o, "size=") }); described != (d.Size > 0) {
				t.Errorf("%s: %s is described with %v", name, m.Destination, st.App().Spec.Mounts[i].Options)
			}
		}
		n++
	}
}

// Options of a directory on the disk are those of a tmpfs, and it is read-only if that is
// asked for.
func TestEmptyDirOptions(t *testing.T) {
	t.Parallel()
	const volume = "volumes: [{name: a, mountPath: /a, readOnly: true, options: [noexec, noatime], emptyDir: {medium: %s, size: 1Mi}}]"
	for medium, want := range map[string]string{
		"disk":   "bind /volume/0 [rbind ro noexec nosuid noatime mode=0777 size=1048576]",
		"memory": "tmpfs tmpfs [ro noexec nosuid noatime mode=0777 size=1048576]",
	} {
		st := built(t, nil, "{host: {}}", fmt.Sprintf(volume, medium))
		m := st.App().Spec.Mounts[len(st.App().Spec.Mounts)-1]
		if got := fmt.Sprint(m.Type, " ", m.Source, " ", m.Options); got != want {
			t.Errorf("%s: %s, expected %s", medium, got, want)
		}
	}
}
