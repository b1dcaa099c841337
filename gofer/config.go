// SPDX-License-Identifier: Apache-2.0

package gofer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Argv0 is the file name of the program, and the name that every gofer is started
// under: those who read the process list tell a gofer by it, whatever its
// executable is called. Until version 3 of the record that was sandboxctl itself.
const Argv0 = "sandboxctl-gofer"

// Protocol is the version of the command line, of Config, and of what a gofer is
// to do with it. The program prints it for `version`; the launcher refuses one
// that speaks another.
const Protocol = 4

// Args is how many arguments a gofer has.
const Args = 4

// Argv is the command line of a gofer: its name, the number of the descriptor
// of its configuration, and the sandbox and its state directory for those who read
// the process list.
func Argv(configFD int, sandbox, state string) []string {
	return []string{Argv0, strconv.Itoa(configFD), sandbox, state}
}

// Exit codes of a gofer.
const (
	ExitOK         = 0
	ExitFailed     = 1  // set-up failed; stderr says why
	ExitGateClosed = 90 // the launcher died before it opened the gate
)

// Config tells a gofer everything it needs. Every FD is a descriptor number in
// the gofer; each is donated for exactly this use.
type Config struct {
	// GateFD is the read end of the start gate: nothing is done before
	// GateOpen arrives on it, and end of file means leave.
	GateFD int `json:"gateFD"`
	// SentryFD is a pidfd of the sentry. The gofer leaves when it is readable.
	SentryFD int `json:"sentryFD"`
	// LeftFD is the file where the gofer, when it leaves because of that,
	// writes Left: where both are found dead, it tells which one ended first.
	LeftFD int    `json:"leftFD"`
	Left   string `json:"left"`
	// Mounts are the served trees: the root first, unless that is an image, then the
	// volumes in the order of the spec.
	Mounts []Mount `json:"mounts"`
	// DirectFS lets the sentry have a descriptor of each mount point and do
	// its own file operations below it.
	DirectFS bool `json:"directFS,omitempty"`
	Logs     Logs `json:"logs"`
	// NeverShared are the places of the host that no mount may show. They are
	// compared with the mounts that are served, not with what was asked for.
	NeverShared []Place `json:"neverShared,omitempty"`
	// Overlays are the overlay filesystems whose layers were compared with
	// NeverShared on the host.
	Overlays []string `json:"overlays,omitempty"`
}

// GateOpen is the byte that opens the start gate.
const GateOpen = 'g'

// Mount is one served tree: exactly one of FD >= 0, Tree and Empty is set.
type Mount struct {
	// SocketFD is the gofer's end of the lisafs connection.
	SocketFD int `json:"socketFD"`
	// FD is a detached mount (open_tree with OPEN_TREE_CLONE) of a directory
	// or of a regular file, or -1.
	FD int `json:"fd"`
	// IsDir says what FD is.
	IsDir bool  `json:"isDir,omitempty"`
	Tree  *Tree `json:"tree,omitempty"`
	// At is the file or directory of Tree that is served, "" for all of it.
	At string `json:"at,omitempty"`
	// Empty is an empty file of the gofer's own, in the place of a masked one.
	Empty bool `json:"empty,omitempty"`
	// Secret keeps a Tree from being swapped to a disk, where the kernel can.
	Secret bool `json:"secret,omitempty"`
	// NoDevices lets no device node below lead to a device.
	NoDevices bool `json:"noDevices,omitempty"`
	// Volume is set of a named volume: where the tree of FD is in its filesystem. This one
	// mount may show a part of the state directory, and only that.
	Volume string `json:"volume,omitempty"`
	// ReadOnly refuses writes in the server, whatever the mount says.
	ReadOnly bool `json:"readOnly,omitempty"`
}

// Tree is a directory tree that the gofer builds on a tmpfs of its own. Paths
// are relative and made by the launcher, parents before children.
type Tree struct {
	Dirs   []Dir   `json:"dirs,omitempty"`
	Owners []Owner `json:"owners,omitempty"`
	Files  []File  `json:"files,omitempty"`
	Links  []Link  `json:"links,omitempty"`
	Binds  []Bind  `json:"binds,omitempty"`
}

// Dir is a directory of a Tree.
type Dir struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
}

// Owner gives a directory or a file of a Tree to somebody else than root.
type Owner struct {
	Path string `json:"path"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
}

// File is a regular file of a Tree.
type File struct {
	Path    string `json:"path"`
	Mode    uint32 `json:"mode"`
	Content string `json:"content"`
	// Data is the content instead, which need not be text.
	Data []byte `json:"data,omitempty"`
}

// Link is a symbolic link of a Tree.
type Link struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

// Bind is a detached mount put into a Tree; its mount point is created.
type Bind struct {
	Path  string `json:"path"`
	FD    int    `json:"fd"`
	IsDir bool   `json:"isDir,omitempty"`
}

// Logs says where the output goes. The files are written by
// sandboxlog.Writer; their descriptors are pipes the sentry writes to.
type Logs struct {
	// DirFD is a detached mount of the log directory: ".." does not leave it.
	DirFD int `json:"dirFD"`
	// AppName is the file of StdoutFD and StderrFD (either may be -1, for a
	// sandbox with a terminal); SentryName that of SentryFD, the sentry's own
	// diagnostics.
	AppName    string `json:"appName"`
	StdoutFD   int    `json:"stdoutFD"`
	StderrFD   int    `json:"stderrFD"`
	SentryName string `json:"sentryName"`
	SentryFD   int    `json:"sentryFD"`
	// MaxBytes is the size at which a file is rotated; two are kept.
	MaxBytes int64 `json:"maxBytes"`
	// LeastFree is the free space of the disk, in bytes, below which nothing is
	// written.
	LeastFree uint64 `json:"leastFree,omitempty"`
}

// Encode writes the configuration as JSON.
func (c *Config) Encode(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(c); err != nil {
		return fmt.Errorf("encode gofer configuration: %w", err)
	}
	return nil
}

// ReadConfig reads the configuration from a descriptor, and closes it: who takes
// the process over later must not find it.
func ReadConfig(fd int) (*Config, error) {
	f := os.NewFile(uintptr(fd), "gofer configuration")
	if f == nil {
		return nil, fmt.Errorf("read gofer configuration: no descriptor %d", fd)
	}
	defer f.Close()
	return decodeConfig(f)
}

// decodeConfig believes nothing: what it returns is acted on by a process that
// is still root on the host.
func decodeConfig(r io.Reader) (*Config, error) {
	var c Config
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return nil, fmt.Errorf("read gofer configuration: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read gofer configuration: something comes after it")
	}
	// One whose root is an image, and that has no volumes, serves nothing and writes
	// logs.
	if len(c.Mounts) == 0 && c.Logs.DirFD <= 0 {
		return nil, errors.New("read gofer configuration: neither mounts nor logs")
	}
	for i, m := range c.Mounts {
		n := 0
		for _, is := range []bool{m.FD >= 0, m.Tree != nil, m.Empty} {
			if is {
				n++
			}
		}
		if n != 1 {
			return nil, fmt.Errorf("read gofer configuration: mount %d needs a descriptor, a tree or to be empty, and only one of these", i)
		}
		if err := m.Tree.check(); err != nil {
			return nil, fmt.Errorf("read gofer configuration: mount %d: %w", i, err)
		}
		if m.At != "" && !m.Tree.has(m.At) {
			return nil, fmt.Errorf("read gofer configuration: mount %d: %q is not a directory or a file of the tree", i, m.At)
		}
	}
	return &c, nil
}

// check refuses a tree with a path that could be somewhere else: every parent
// must be a directory that the tree itself makes, so that no "..", link or
// mount is ever on the way.
func (t *Tree) check() error {
	if t == nil {
		return nil
	}
	dirs, taken := map[string]bool{".": true}, map[string]bool{}
	for _, d := range t.Dirs {
		if !isPlain(d.Path) || !dirs[path.Dir(d.Path)] {
			return fmt.Errorf("directory %q is not below one of the tree", d.Path)
		}
		dirs[d.Path] = true
	}
	add := func(p string, onDir bool) error {
		if !isPlain(p) || !dirs[path.Dir(p)] {
			return fmt.Errorf("%q is not below a directory of the tree", p)
		}
		if taken[p] || dirs[p] && !onDir {
			return fmt.Errorf("%q is in the tree twice", p)
		}
		taken[p] = true
		return nil
	}
	var errs []error
	for _, f := range t.Files {
		errs = append(errs, add(f.Path, false))
	}
	for _, o := range t.Owners {
		if !(dirs[o.Path] || taken[o.Path]) || o.Path == "." {
			errs = append(errs, fmt.Errorf("%q is not a directory or a file of the tree", o.Path))
		}
	}
	for _, l := range t.Links {
		errs = append(errs, add(l.Path, false))
	}
	for _, b := range t.Binds {
		errs = append(errs, add(b.Path, b.IsDir))
	}
	return errors.Join(errs...)
}

// has says whether a path is that of a directory or a file of the tree.
func (t *Tree) has(p string) bool {
	return t != nil && (slices.ContainsFunc(t.Dirs, func(d Dir) bool { return d.Path == p }) || slices.ContainsFunc(t.Files, func(f File) bool { return f.Path == p }))
}

// isPlain says whether a path is a relative one that says where it leads.
func isPlain(p string) bool {
	return filepath.IsLocal(p) && path.Clean(p) == p && p != "." && !strings.ContainsRune(p, 0)
}

// MountPoint is where a gofer serves a mount from, below its own root.
func MountPoint(i int) string { return "/m" + strconv.Itoa(i) }
