// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	it "sandboxctl.dev/launcher/image/imagetest"
)

// everything is an image of n files with all that layers may have and podman takes.
func everything(t *testing.T, n int) [][]byte {
	t.Helper()
	var lower, upper []it.Entry
	for i := range n {
		d := fmt.Sprintf("d%03d", i/500)
		if i%500 == 0 {
			// The second layer has it too, as those of all tools have: what only a name in it
			// implies loses its mode with podman.
			entry := it.Dir(d).With(mode(0o755 | int64(i/500%2)*0o2000))
			lower, upper = append(lower, entry), append(upper, entry)
		}
		name := fmt.Sprintf("%s/%s%d", d, strings.Repeat("n", i%240), i)
		switch i % 10 {
		case 0:
			lower = append(lower, it.Symlink(name, fmt.Sprintf("/d000/../../../etc/%d", i)))
		case 1:
			lower = append(lower, it.Symlink(name, strings.Repeat("../", i%50)+"x"))
		case 2:
			lower = append(lower, it.File(name, strings.Repeat("c", i%9000)), it.Link(name+"l", name))
		case 3:
			lower = append(lower, it.File(name, "x").With(mode(0o4755)).With(owner(i, 65_534)))
		case 4:
			lower = append(lower, it.File(name, "x").With(func(h *tar.Header) {
				h.PAXRecords = map[string]string{"SCHILY.xattr.user.a": strings.Repeat("v", 1+i%200)}
			}))
		default:
			lower = append(lower, it.File(name, strconv.Itoa(i)))
		}
		if i%7 == 0 {
			upper = append(upper, it.File(fmt.Sprintf("%s/.wh.%s%d", d, strings.Repeat("n", i%240), i), ""))
		}
	}
	lower = append(lower, it.Dir("opaque"), it.File("opaque/gone", ""), it.Dir("opaque/d"), it.File("opaque/d/gone", ""), it.Dir("gone"), it.File("gone/a", ""),
		it.Dir("replaced"), it.File("replaced/a", ""), it.File("file", ""), it.Dir("usr"), it.Symlink("lib", "usr"))
	upper = append(upper, it.Dir("opaque"), it.File("opaque/.wh..wh..opq", ""), it.File("opaque/new", "n"), it.File(".wh.gone", ""),
		it.File("replaced", "by a file"), it.Dir("file"), it.File("file/a", "below"), it.File("usr/late", "l"))
	holes, _ := sparse(t, "pax")
	return [][]byte{it.Tar(lower...), it.Tar(upper...), holes}
}

// sparse is a layer of files with holes, as tar writes them, and where they are.
func sparse(t *testing.T, format string) (layer []byte, dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, parts := range map[string][]int64{"hole": nil, "middle": {1 << 20}, "ends": {0, 3 << 20}, "many": {0, 1 << 20, 2 << 20, 3 << 20, 4 << 20, 5 << 20, 6 << 20}} {
		f, err := os.Create(dir + "/" + format + "-" + name)
		if err == nil {
			for _, at := range parts {
				if _, err = f.WriteAt([]byte(name), at); err != nil {
					break
				}
			}
		}
		if err == nil {
			err = f.Truncate(7<<20 + 1)
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("tar", "--sparse", "--format="+format, "--owner=0", "--group=0", "-C", dir, "-c", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	return out, dir
}

// Files with holes are what they were, in both formats that tar has for them.
func TestSparse(t *testing.T) {
	t.Parallel()
	hosttest.NeedsRoot(t, "the files must belong to root, as in the layer")
	for _, format := range []string{"gnu", "pax"} {
		layer, dir := sparse(t, format)
		if len(layer) > 1<<20 {
			t.Errorf("%s: the layer has %d bytes: nothing is sparse", format, len(layer))
		}
		f, _, err := merge(t, DefaultLimits, layer)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, nodes(t, f.Name()), onHost(t, dir))
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if st.Blocks*512 > 64<<20 {
			t.Errorf("%s: it takes %d MiB of the disk", format, st.Blocks>>11)
		}
	}
}

// An image with everything is the same files as podman has of it. FILES is how many.
func TestEverythingAsPodman(t *testing.T) {
	if os.Getenv("SANDBOXCTL_E2E") == "" {
		hosttest.Lacks(t, "podman makes file systems of the host: set SANDBOXCTL_E2E")
	}
	n := 2000
	if s := os.Getenv("FILES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	all := everything(t, n)
	f, _, err := merge(t, DefaultLimits, all...)
	if err != nil {
		t.Fatal(err)
	}
	got := nodes(t, f.Name())
	agree(t, f, got)
	dir := t.TempDir()
	run := func(args ...string) string {
		cmd := exec.Command("podman", append([]string{"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "overlay"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("podman %s: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	t.Cleanup(func() {
		run("image", "umount", "-a", "-f")
		_ = unix.Unmount(dir+"/root/overlay", unix.MNT_DETACH)
	})
	archive := dir + "/a.tar"
	if err := os.WriteFile(archive, it.DockerArchive([]string{"localhost/all:1"}, it.Config(nil, all...), all...), 0o644); err != nil {
		t.Fatal(err)
	}
	run("load", "-q", "-i", archive)
	want := onHost(t, run("image", "mount", "localhost/all:1"))
	delete(got, ".") // podman has a root of its own
	delete(want, ".")
	if len(want) < n/2 {
		t.Fatalf("podman has %d files", len(want))
	}
	compare(t, comparable(got), comparable(want))
	t.Logf("%d files", len(want))
}
