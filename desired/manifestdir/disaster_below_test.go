// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// belowDisasters happen to links and directories in the directory of manifests: names
// stay, and what they lead to goes.
var belowDisasters = []disaster{
	{name: "a release that is linked first and filled later", do: func(d *scene) {
		for range 3 {
			d.must(os.Rename(d.at("a.yaml"), d.at(".a")))
			d.must(os.Symlink(".release/a.yaml", d.at("a.yaml")))
			d.problem("a.yaml: the file can't be read: it is a symbolic link that leads to nothing")
			d.must(errors.Join(os.Mkdir(d.at(".release"), 0o755), os.Rename(d.at(".a"), d.at(".release/a.yaml"))))
			d.whole("sh", "sh", "sh")
			d.must(errors.Join(os.Rename(d.at(".release/a.yaml"), d.at("a.yaml")), os.Remove(d.at(".release"))))
			d.whole("sh", "sh", "sh")
		}
	}},
	{name: "the target of ..data away for a moment", do: func(d *scene) {
		d.fill(d.at("..1"), "sh")
		d.must(os.Symlink("..1", d.at("..data")))
		d.must(errors.Join(os.RemoveAll(d.at("sub")), os.Symlink("..data/sub", d.at("sub"))))
		for _, f := range []string{"a.yaml", "b.yaml"} {
			d.must(errors.Join(os.Remove(d.at(f)), os.Symlink("..data/"+f, d.at(f))))
		}
		d.whole("sh", "sh", "sh")
		d.must(os.Rename(d.at("..1"), d.at("..gone")))
		d.problem("sub: it is a symbolic link that leads to nothing")
		d.must(os.Rename(d.at("..gone"), d.at("..1")))
		d.whole("sh", "sh", "sh")
	}},
	{name: "a directory below renamed away, an empty one in its place", do: func(d *scene) {
		d.must(errors.Join(os.Rename(d.at("sub"), d.at(".sub")), os.Mkdir(d.at("sub"), 0o755)))
		d.problem("sub: it is not the directory that was there before")
		d.must(errors.Join(os.Remove(d.at("sub")), os.Rename(d.at(".sub"), d.at("sub"))))
		d.whole("sh", "sh", "sh")
	}},
	{name: "a directory below replaced by links", do: func(d *scene) {
		d.must(os.Mkdir(d.at(".empty"), 0o755))
		d.must(os.Rename(d.at("sub"), d.at(".sub")))
		for to, says := range map[string]string{".empty": "not the directory that was there before", "nothing": "leads to nothing", "sub": "loop of links", "/etc": "leads out"} {
			d.must(errors.Join(os.Symlink(to, d.at(".new")), os.Rename(d.at(".new"), d.at("sub"))))
			d.problem(says)
		}
		d.must(errors.Join(os.Symlink(".sub", d.at(".new")), os.Rename(d.at(".new"), d.at("sub"))))
		d.whole("sh", "sh", "sh")
	}},
	{name: "a volume below mounted over and unmounted", poll: often, root: true, do: func(d *scene) {
		v := filepath.Join(d.top, "volume")
		d.writeTo(filepath.Join(v, "c.yaml"), manifestOf("c", "edited"))
		for range 3 {
			d.must(unix.Mount("tmpfs", d.at("sub"), "tmpfs", 0, "size=1m,mode=755"))
			d.problem("sub: it is not the directory that was there before")
			d.must(unix.Unmount(d.at("sub"), unix.MNT_DETACH))
			d.whole("sh", "sh", "sh")
		}
		d.must(os.Remove(d.at("sub/c.yaml")))
		d.must(unix.Mount(v, d.at("sub"), "", unix.MS_BIND, ""))
		d.whole("sh", "sh", "edited")
		d.must(unix.Unmount(d.at("sub"), unix.MNT_DETACH))
		d.problem("sub: it is not the directory that was there before")
		d.must(unix.Mount(v, d.at("sub"), "", unix.MS_BIND, ""))
		d.whole("sh", "sh", "edited")
		d.must(unix.Unmount(d.at("sub"), unix.MNT_DETACH))
	}},
}
