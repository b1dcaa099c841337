// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// Peek returns the beginning of a file of a sandbox that has not been started, as
// its application would see it: below the volume or the root that it is in, links
// followed inside of that.
func Peek(st *setup.Setup, img *hostfs.Image, p string, size int64) []byte {
	tree, rel := treeAt(st.ServedAt(), p, "")
	switch {
	case path.Clean(p) != p, tree == nil, !tree.HasFiles(), tree.Host && !hostfs.ShowsHost(p):
		return nil
	case tree.Image != nil:
		b, err := img.ReadFile(rel, size)
		if err != nil {
			return nil
		}
		return b
	case tree.Host:
		tree = &setup.Source{Path: "/"}
	}
	b, err := readBeginning(tree, rel, size)
	if err != nil {
		return nil
	}
	return b
}

func readBeginning(tree *setup.Source, rel string, size int64) ([]byte, error) {
	f, err := openIn(tree, rel)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// To open a FIFO of the host would take data from its reader.
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(errors.New("no regular file"), err)
	}
	file, err := os.Open(proc.FDPath(f))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, size))
}

// treeAt is the tree of the host that a path of the container is in, and where in it;
// nil if it is in what is the sentry's. The mount at but does not count.
func treeAt(served map[string]*setup.Source, p, but string) (tree *setup.Source, rel string) {
	at := p
	tree, ok := served[at]
	for at != "/" && (!ok || at == but) {
		at = path.Dir(at)
		tree, ok = served[at]
	}
	return tree, strings.Trim(strings.TrimPrefix(p, at), "/")
}

// openIn opens what is at a path of a tree. Links lead where they lead in the
// container.
func openIn(tree *setup.Source, rel string) (*os.File, error) {
	dir, err := hostfs.OpenSource(tree)
	if err != nil {
		return nil, err
	}
	return openBelow(dir, rel)
}

// openBelow is openIn for a tree that is open, which it takes over.
func openBelow(dir *os.File, rel string) (*os.File, error) {
	if rel == "" {
		return dir, nil
	}
	defer dir.Close()
	return hostfs.OpenAt(int(dir.Fd()), rel, unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}
