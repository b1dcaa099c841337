// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// giveUpper gives the sentry what it lays over a root before anything runs: its time zone,
// and over an image the files that are the sandbox's own, and where the root is read-only
// the mount points that the image lacks, which nobody could make later. It returns -1 if
// there is nothing to give, or all of it is in a checkpoint.
//
// They are ordinary files in the memory of the sandbox, which it may change or replace.
// An engine mounts them instead, so that they can be neither renamed nor removed.
func giveUpper(la *Launch, points map[string]bool, d *proc.Donation) (int, error) {
	app := la.Setup.App()
	if app.Restores || app.Root.Host || app.Root.Image == nil && app.Root.Zone == nil {
		return -1, nil
	}
	var b bytes.Buffer
	u := &upper{w: tar.NewWriter(&b), made: map[string]bool{}, now: time.Now()}
	if app.Root.Image != nil {
		u.tree = la.Image.Tree
	} else {
		tree, err := hostfs.OpenTree(&app.Root, la.Setup.Maps)
		if err != nil {
			return -1, err
		}
		defer tree.Close()
		u.tree = tree
	}
	err := u.write(app, points)
	if err == nil {
		err = u.w.Close()
	}
	if err != nil {
		return -1, fmt.Errorf("archive: %w", err)
	}
	f, err := proc.MemFile("upper", b.Bytes())
	if err != nil {
		return -1, err
	}
	return d.Give(f), nil
}

// write writes the whole archive.
func (u *upper) write(app *setup.Container, points map[string]bool) error {
	if app.Root.Image != nil {
		files, links, err := hostfs.NetworkFiles(app.Root)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := u.file(f.Path, f.Mode, f.Content); err != nil {
				return err
			}
		}
		if err := u.links(links); err != nil {
			return err
		}
	}
	files, links := hostfs.ZoneFiles(app.Root.Zone)
	for _, f := range files {
		if err := u.file(f.Path, f.Mode, string(f.Data)); err != nil {
			return err
		}
	}
	if err := u.links(links); err != nil {
		return err
	}
	if app.Root.Image != nil && app.Overlay == desired.OverlayNone {
		return u.mountPoints(points)
	}
	return nil
}

// upper writes an archive of what is laid over an image, as gVisor wants it: with a
// header of each directory, and names below "./".
type upper struct {
	tree fs.FS
	w    *tar.Writer
	made map[string]bool
	now  time.Time
}

func (u *upper) mountPoints(points map[string]bool) error {
	for _, dest := range slices.Sorted(maps.Keys(points)) {
		name := strings.Trim(path.Clean(dest), "/")
		if _, err := fs.Stat(u.tree, name); !errors.Is(err, fs.ErrNotExist) {
			continue // it is there, or leads where only gVisor can follow
		}
		var err error
		if points[dest] {
			err = u.dir(u.follow(name))
		} else {
			err = u.file(name, 0o644, "")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// file adds a file.
func (u *upper) file(name string, mode uint32, content string) error {
	return u.put(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode)}, content)
}

// links adds symbolic links.
func (u *upper) links(links []gofer.Link) error {
	for _, l := range links {
		if err := u.put(tar.Header{Typeflag: tar.TypeSymlink, Name: l.Path, Linkname: l.Target, Mode: 0o777}, ""); err != nil {
			return err
		}
	}
	return nil
}

// put adds something in the directory that its name leads to.
func (u *upper) put(h tar.Header, content string) error {
	dir := u.follow(path.Dir(h.Name))
	if err := u.dir(dir); err != nil {
		return err
	}
	h.Name = path.Join(dir, path.Base(h.Name))
	return u.add(h, content)
}

// maxLinks is how many links a name may lead through, as in Linux.
const maxLinks = 40

// follow is where a directory is if parts of its name are links of the image, which stay:
// what is laid over one hides it. The result has no link, unless they lead in a circle.
func (u *upper) follow(name string) string {
	at, rest, links := ".", name, 0
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		next := path.Join(at, part)
		if next == ".." {
			next = "." // the root is above itself
		}
		target, err := fs.ReadLink(u.tree, next)
		if err != nil {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return name
		}
		if path.IsAbs(target) {
			at = "."
		}
		rest = target + "/" + rest
	}
	return at
}

// dir adds a directory with those above it. One that the image has keeps its owner and
// its mode: what is laid over it counts.
func (u *upper) dir(name string) error {
	if u.made[name] {
		return nil
	}
	u.made[name] = true
	if name != "." {
		if err := u.dir(path.Dir(name)); err != nil {
			return err
		}
	}
	h := tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: u.now}
	if info, err := fs.Lstat(u.tree, name); err == nil && info.IsDir() {
		h.ModTime, h.Mode = info.ModTime(), int64(info.Mode().Perm())
		for bit, mode := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
			if info.Mode()&bit != 0 {
				h.Mode |= mode
			}
		}
		if o, ok := info.(interface {
			UID() uint32
			GID() uint32
		}); ok {
			h.Uid, h.Gid = int(o.UID()), int(o.GID())
		}
	}
	return u.add(h, "")
}

func (u *upper) add(h tar.Header, content string) error {
	switch {
	case h.Name == ".":
		h.Name = "./"
	case h.Typeflag == tar.TypeDir:
		h.Name = "./" + h.Name + "/"
	default:
		h.Name = "./" + h.Name
	}
	if h.ModTime.IsZero() {
		h.ModTime = u.now
	}
	h.Size, h.Format = int64(len(content)), tar.FormatPAX
	err := u.w.WriteHeader(&h)
	if err == nil {
		_, err = u.w.Write([]byte(content))
	}
	if err != nil {
		return fmt.Errorf("archive %s: %w", h.Name, err)
	}
	return nil
}
