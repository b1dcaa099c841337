// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/zone"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/idmap"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// owned has owners, as the tree of an image has.
type owned struct{ fstest.MapFS }

type ownedInfo struct{ fs.FileInfo }

func (ownedInfo) UID() uint32 { return 101 }
func (ownedInfo) GID() uint32 { return 102 }

func (o owned) Lstat(name string) (fs.FileInfo, error) {
	info, err := o.MapFS.Lstat(name)
	if err != nil {
		return nil, err
	}
	return ownedInfo{info}, nil
}

// upperOf is the archive, one line for each header.
func upperOf(t *testing.T, la *Launch, points map[string]bool) string {
	t.Helper()
	var d proc.Donation
	defer d.Close()
	fd, err := giveUpper(la, points, &d)
	if err != nil {
		t.Fatal(err)
	}
	if fd < 0 {
		return ""
	}
	files := d.Descriptors()
	again, err := unix.FcntlInt(files[len(files)-1].Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(again), "upper")
	defer f.Close()
	var out strings.Builder
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Linkname != "" {
			b = []byte("-> " + h.Linkname)
		}
		fmt.Fprintf(&out, "%s %o %d:%d %q\n", h.Name, h.Mode, h.Uid, h.Gid, b)
	}
}

// What is laid over an image has its own files, and changes nothing else: directories
// keep their owners and modes, and links lead where they led.
func TestUpper(t *testing.T) {
	t.Parallel()
	dir := func(mode fs.FileMode) *fstest.MapFile {
		return &fstest.MapFile{Mode: fs.ModeDir | mode, ModTime: time.Unix(5, 0)}
	}
	link := func(to string) *fstest.MapFile {
		return &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte(to)}
	}
	build := func(tree fstest.MapFS, overlay string) *Launch {
		return &Launch{
			Image: &hostfs.Image{Tree: owned{tree}},
			Setup: &setup.Setup{Containers: []setup.Container{{Overlay: overlay, Root: setup.Source{Image: &setup.ImageSource{}, Hostname: "web"}}}},
		}
	}
	const files = `%[1]s/hostname 644 0:0 "web\n"` + "\n" + `%[1]s/hosts 644 0:0 "127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 web\n"` + "\n" + `%[1]s/resolv.conf 644 0:0 ""` + "\n"
	points := map[string]bool{"/dev": true, "/tmp": true, "/data/a": true, "/srv/app/f": false, "/there": true, "/.hidden": true}
	for name, c := range map[string]struct {
		tree    fstest.MapFS
		overlay string
		want    string
	}{
		"empty image":  {fstest.MapFS{".": dir(0o755)}, desired.OverlayMemory, "./ 755 101:102 \"\"\n./etc/ 755 0:0 \"\"\n" + fmt.Sprintf(files, "./etc")},
		"its etc":      {fstest.MapFS{".": dir(0o555), "etc": dir(0o750 | fs.ModeSetgid)}, desired.OverlayMemory, "./ 555 101:102 \"\"\n./etc/ 2750 101:102 \"\"\n" + fmt.Sprintf(files, "./etc")},
		"a link":       {fstest.MapFS{".": dir(0o755), "etc": link("usr/etc"), "usr/etc": dir(0o711)}, desired.OverlayMemory, "./ 755 101:102 \"\"\n./usr/ 555 101:102 \"\"\n./usr/etc/ 711 101:102 \"\"\n" + fmt.Sprintf(files, "./usr/etc")},
		"a circle":     {fstest.MapFS{".": dir(0o755), "etc": link("etc")}, desired.OverlayMemory, "./ 755 101:102 \"\"\n./etc/ 755 0:0 \"\"\n" + fmt.Sprintf(files, "./etc")},
		"out of it":    {fstest.MapFS{".": dir(0o755), "etc": link("../../../x")}, desired.OverlayMemory, "./ 755 101:102 \"\"\n./x/ 755 0:0 \"\"\n" + fmt.Sprintf(files, "./x")},
		"a link above": {fstest.MapFS{".": dir(0o755), "etc": link("/a/b"), "a": link("c"), "c": dir(0o755), "c/b": dir(0o711)}, desired.OverlayMemory, "./ 755 101:102 \"\"\n./c/ 755 101:102 \"\"\n./c/b/ 711 101:102 \"\"\n" + fmt.Sprintf(files, "./c/b")},
		"read-only, links": {
			fstest.MapFS{".": dir(0o755), "etc": dir(0o755), "tmp": dir(0o777), "dev": dir(0o755), ".hidden": dir(0o700), "there": dir(0o700), "..data": dir(0o755), "data": link("/run/x"), "run": link("var/run"), "var/run": dir(0o700), "srv": link("../../opt"), "opt": dir(0o750)},
			desired.OverlayNone,
			"./ 755 101:102 \"\"\n./etc/ 755 101:102 \"\"\n" + fmt.Sprintf(files, "./etc") +
				"./var/ 555 101:102 \"\"\n./var/run/ 700 101:102 \"\"\n./var/run/x/ 755 0:0 \"\"\n./var/run/x/a/ 755 0:0 \"\"\n" +
				"./opt/ 750 101:102 \"\"\n./opt/app/ 755 0:0 \"\"\n./opt/app/f 644 0:0 \"\"\n",
		},
		"read-only": {
			fstest.MapFS{".": dir(0o755), "etc": dir(0o755), "srv/app": dir(0o700), "there": dir(0o700)},
			desired.OverlayNone,
			"./ 755 101:102 \"\"\n./etc/ 755 101:102 \"\"\n" + fmt.Sprintf(files, "./etc") + "./.hidden/ 755 0:0 \"\"\n./data/ 755 0:0 \"\"\n./data/a/ 755 0:0 \"\"\n./dev/ 755 0:0 \"\"\n" +
				"./srv/ 555 101:102 \"\"\n./srv/app/ 700 101:102 \"\"\n./srv/app/f 644 0:0 \"\"\n./tmp/ 755 0:0 \"\"\n",
		},
	} {
		if got := upperOf(t, build(c.tree, c.overlay), points); got != c.want {
			t.Errorf("%s: got\n%s\nexpected\n%s", name, got, c.want)
		}
	}
	la := build(fstest.MapFS{}, desired.OverlayMemory)
	la.Setup.App().Restores = true
	if got := upperOf(t, la, points); got != "" {
		t.Errorf("over what is in a checkpoint lies %s", got)
	}
	la = build(fstest.MapFS{}, desired.OverlayMemory)
	la.Setup.App().Root.Image = nil
	if got := upperOf(t, la, points); got != "" {
		t.Errorf("over a root that is no image lies %s", got)
	}
}

// A time zone lies over an image, and over a directory of the host, of which nothing is
// changed: as a link with the name, and with the data where it leads. A link that was there
// is not followed to the data of another zone.
func TestUpperTimezone(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, d := range []string{"etc", "usr/share/zoneinfo/Etc", "data/zones"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"etc/localtime": "/usr/share/zoneinfo/Etc/UTC", "usr/share/zoneinfo/Europe": "../../../data/zones"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(root, "etc"), 0o751), os.Chown(filepath.Join(root, "etc"), 100_005, 100_006), os.Chmod(root, 0o711)); err != nil {
		t.Fatal(err)
	}
	launch := func(z *zone.Zone, ids *idmap.Maps) *Launch {
		return &Launch{Setup: &setup.Setup{Maps: ids, Containers: []setup.Container{{Overlay: desired.OverlayMemory, Root: setup.Source{Path: root, Zone: z}}}}}
	}
	berlin := &zone.Zone{Name: "Europe/Berlin", Data: []byte("TZif")}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100_000, Size: 1000}}
	const named = "./ 711 %d:%d \"\"\n./data/ 755 %d:%d \"\"\n./data/zones/ 755 %d:%d \"\"\n./data/zones/Berlin 644 0:0 \"TZif\"\n" +
		"./etc/ 751 %d:%d \"\"\n./etc/timezone 644 0:0 \"Europe/Berlin\\n\"\n./etc/localtime 777 0:0 \"-> /usr/share/zoneinfo/Europe/Berlin\"\n"
	for name, c := range map[string]struct {
		la   *Launch
		want string
	}{
		"a name":   {launch(berlin, nil), fmt.Sprintf(named, 0, 0, 0, 0, 0, 0, 100_005, 100_006)},
		"mapped":   {launch(berlin, &idmap.Maps{UIDs: ids, GIDs: ids}), fmt.Sprintf(named, 65534, 65534, 65534, 65534, 65534, 65534, 5, 6)},
		"no name":  {launch(&zone.Zone{Data: []byte("own")}, nil), "./ 711 0:0 \"\"\n./etc/ 751 100005:100006 \"\"\n./etc/localtime 644 0:0 \"own\"\n"},
		"not said": {launch(nil, nil), ""},
	} {
		if got := upperOf(t, c.la, nil); got != c.want {
			t.Errorf("%s: got\n%s\nexpected\n%s", name, got, c.want)
		}
	}
	if to, err := os.Readlink(filepath.Join(root, "etc/localtime")); err != nil || to != "/usr/share/zoneinfo/Etc/UTC" {
		t.Errorf("the root was changed: %s %v", to, err)
	}
}
