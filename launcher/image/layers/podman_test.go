// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	it "sandboxctl.dev/launcher/image/imagetest"
)

// The images of TestMerge are the same files as podman makes of them, which unpacks each
// layer and lays overlays over them.
func TestMergeAsPodman(t *testing.T) {
	if os.Getenv("SANDBOXCTL_E2E") == "" {
		t.Skip("podman makes file systems of the host: set SANDBOXCTL_E2E")
	}
	dir := t.TempDir()
	podman := func(args ...string) (string, error) {
		cmd := exec.Command("podman", append([]string{"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "overlay"}, args...)...)
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	t.Cleanup(func() {
		_, _ = podman("image", "umount", "-a", "-f")
		_ = unix.Unmount(dir+"/root/overlay", unix.MNT_DETACH)
	})
	compared := 0
	for i, c := range merges {
		if otherwise[c.name] {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			var all [][]byte
			for _, l := range c.layers {
				all = append(all, it.Tar(l...))
			}
			if len(all) == 0 {
				return
			}
			tag := fmt.Sprintf("localhost/t%d:1", i)
			archive := fmt.Sprintf("%s/%d.tar", dir, i)
			if err := os.WriteFile(archive, it.DockerArchive([]string{tag}, it.Config(nil, all...), all...), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := podman("load", "-q", "-i", archive); err != nil {
				// It takes no duplicates, and no links to what another layer has.
				t.Logf("podman refuses it: %s", out)
				return
			}
			at, err := podman("image", "mount", tag)
			if err != nil {
				t.Fatal(at)
			}
			f, _, err := merge(t, DefaultLimits, all...)
			if err != nil {
				t.Fatal(err)
			}
			got, want := nodes(t, f.Name()), onHost(t, at)
			delete(got, ".") // podman has a root of its own
			delete(want, ".")
			compare(t, comparable(got), comparable(want))
			compared++
		})
	}
	if compared < 15 {
		t.Errorf("only %d images were compared", compared)
	}
}

// otherwise are merges that an overlay can't show: a root can't be opaque in one, and a
// white-out without anything below it is a device there.
var otherwise = map[string]bool{"an opaque root": true, "a whiteout of nothing": true}

// comparable leaves out how many links files have, which an overlay does not know across
// layers, and devices, which are not merged.
func comparable(all map[string]string) map[string]string {
	for p, line := range all {
		all[p] = regexp.MustCompile(` links [0-9]+`).ReplaceAllString(line, "")
		if strings.HasPrefix(line, "20") || strings.HasPrefix(line, "60") {
			delete(all, p)
		}
	}
	return all
}

// onHost describes a directory as nodes does.
func onHost(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%o %d:%d links %d", st.Mode, st.Uid, st.Gid, st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			w := what(string(b), 0, 1)
			line += w[strings.Index(w, " links 1")+len(" links 1"):]
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + to
		}
		out[rel] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
