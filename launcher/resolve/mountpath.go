// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/setup"
)

// maxMountLinks bounds the links on the way to a mount point, as the kernel does.
const maxMountLinks = 40

// mountPoints replaces the mount points by where links of the root and of
// other mounts lead, as runc does. The sentry follows links by itself, but can't
// make a mount point where one leads nowhere: /etc/resolv.conf of a root in which
// systemd-resolved is not running, for one.
func mountPoints(st *setup.Setup, img *hostfs.Image) error {
	trees := containerTrees{served: st.ServedAt(), image: img, open: map[*setup.Source]*os.File{}}
	defer trees.close()
	for i := range st.App().Spec.Mounts {
		m := &st.App().Spec.Mounts[i]
		// A mount does not stand in its own way.
		trees.but = filepath.Clean(m.Destination)
		dest, err := trees.resolve(m.Destination)
		if err != nil {
			return fmt.Errorf("mount point %s: %w", m.Destination, err)
		}
		if dest == "/" && trees.but != "/" {
			return operation.Permanentf("mount point %s: it leads to the root of the sandbox, which can't be mounted over", m.Destination)
		}
		trees.served[dest] = trees.served[trees.but]
		m.Destination = dest
	}
	return nil
}

// containerTrees are the trees of the host in a container, by their mount points.
type containerTrees struct {
	served map[string]*setup.Source
	but    string
	image  *hostfs.Image
	open   map[*setup.Source]*os.File
}

func (c *containerTrees) close() {
	for _, f := range c.open {
		f.Close()
	}
}

// resolve follows every link of a path of the container, as far as there is
// something. What does not exist is left as it is.
func (c *containerTrees) resolve(p string) (string, error) {
	at, links := "/", 0
	todo := strings.Split(strings.TrimPrefix(path.Clean(p), "/"), "/")
	for len(todo) > 0 {
		next := path.Join(at, todo[0])
		todo = todo[1:]
		target, err := c.readlink(next)
		if err != nil {
			return "", err
		}
		if target == "" {
			at = next
			continue
		}
		if links++; links > maxMountLinks {
			return "", operation.Permanentf("%w: links lead in a circle, or there are more than %d", unix.ELOOP, maxMountLinks)
		}
		if path.IsAbs(target) {
			at = "/"
		}
		// ".." is of what is there then: path.Join of a path without links.
		todo = append(strings.Split(target, "/"), todo...)
	}
	return at, nil
}

// readlink returns where a link of the container leads, "" if there is none. The
// path to it is without links.
func (c *containerTrees) readlink(p string) (string, error) {
	tree, rel := treeAt(c.served, p, c.but)
	if tree == nil || !tree.HasFiles() || tree.Host || rel == "" {
		return "", nil
	}
	if tree.Image != nil {
		// It says why, when it is mounted, if it is not what it should be.
		target, err := fs.ReadLink(c.image.Tree, rel)
		if err != nil {
			return "", nil //nolint:nilerr // it is no link
		}
		return target, nil
	}
	dir := c.dir(tree)
	if dir == nil {
		return "", nil // opening it to be served says why
	}
	f, err := hostfs.OpenAt(int(dir.Fd()), rel, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 4096) // no link is longer
	n, err := unix.Readlinkat(int(f.Fd()), "", b)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // ENOENT: it is no link
		return "", nil
	}
	return string(b[:max(n, 0)]), err
}

// dir is the open top of a tree, nil if it can't be opened.
func (c *containerTrees) dir(tree *setup.Source) *os.File {
	if f := c.open[tree]; f != nil {
		return f
	}
	f, err := hostfs.OpenSource(tree)
	if err != nil {
		return nil
	}
	c.open[tree] = f
	return f
}
