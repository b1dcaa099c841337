// SPDX-License-Identifier: Apache-2.0

package cp

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/cmd/sandboxctl/exit"
)

// place is one of the two arguments.
type place struct {
	sandbox string // "" for this host
	path    string
}

// stream says that a place is standard input or output.
func (p place) stream() bool { return p.sandbox == "" && p.path == "-" }

var inSandbox = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?):(.*)$`) })

// parsePlaces reads SRC and DST. A path of the host with a colon is written ./a:b.
func parsePlaces(src, dst string) (from, to place, err error) {
	for i, arg := range []string{src, dst} {
		p := place{path: arg}
		if m := inSandbox().FindStringSubmatch(arg); m != nil {
			p = place{m[1], m[3]}
		}
		if p.path == "" {
			return from, to, exit.Usagef("%q has no path; expected NAME:PATH, a path of this host, or -", arg)
		}
		if i == 0 {
			from = p
		} else {
			to = p
		}
	}
	switch {
	case from.sandbox == "" && to.sandbox == "":
		err = exit.Usagef("neither %q nor %q is in a sandbox; expected NAME:PATH for one of them", src, dst)
	case from.sandbox != "" && to.sandbox != "":
		err = exit.Usagef("both are in sandboxes; pipe one copy into another: sandboxctl cp %s - | sandboxctl cp - %s", src, dst)
	}
	return from, to, err
}

// base is the name that a copy of a file in a sandbox has.
func (p place) base() string {
	if b := path.Base(path.Join("/", p.path)); b != "/" {
		return b
	}
	return p.sandbox
}

// destination opens the directory that a copy is written to, once: from here on no path is
// looked up again. name is what it gets there.
func (p place) destination(base string) (dir *os.File, name string, err error) {
	st, err := os.Stat(p.path)
	switch {
	case err == nil && st.IsDir():
		dir, err = openDir(p.path)
		return dir, base, err
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, "", err
	case strings.HasSuffix(p.path, "/"):
		return nil, "", fmt.Errorf("%s is no directory; make it first", p.path)
	}
	name = filepath.Base(p.path)
	if dir, err = openDir(filepath.Dir(p.path)); errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no directory %s; make it first", filepath.Dir(p.path))
	}
	return dir, name, err
}

func openDir(p string) (*os.File, error) {
	d, err := dirfd.Open(unix.AT_FDCWD, p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: p, Err: err}
	}
	return d, nil
}

// source opens what is copied, and returns the name that the copy has. It does not wait
// for a fifo that nobody writes.
func (p place) source() (*os.File, string, error) {
	f, err := dirfd.Open(unix.AT_FDCWD, p.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, "", &fs.PathError{Op: "open", Path: p.path, Err: err}
	}
	abs, err := filepath.Abs(p.path)
	if err != nil {
		f.Close()
		return nil, "", err
	}
	name := filepath.Base(abs)
	if name == "/" {
		name = "root"
	}
	return f, name, nil
}
