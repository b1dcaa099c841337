// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
)

// vanishing is a change of a directory in which a.yaml defines a, sub/b.yaml b and
// sub/deep/c.yaml c, after which some of them can't be read although their names are
// there. None of them is removed, it is told where, and when it is undone all is well.
type vanishing struct {
	do   func(v *scenery)
	told string // the file or directory of the problem
	says string // a part of its message
	undo func(v *scenery)
	root bool
}

type scenery struct{ *tree }

func (v *scenery) at(p string) string { return filepath.Join(v.top, "m", p) }
func (v *scenery) mv(from, to string) { v.must(os.Rename(v.at(from), v.at(to))) }
func (v *scenery) ln(to, at string)   { v.must(os.Symlink(to, v.at(at))) }
func (v *scenery) rm(p string)        { v.must(os.RemoveAll(v.at(p))) }
func (v *scenery) mkdir(p string)     { v.must(os.MkdirAll(v.at(p), 0o755)) }
func (v *scenery) mount(from, at, typ string, flags uintptr) {
	data := ""
	if typ != "" {
		data = "mode=755"
	}
	v.must(unix.Mount(from, v.at(at), typ, flags, data))
}
func (v *scenery) umount(at string) { v.must(unix.Unmount(v.at(at), 0)) }

var vanishings = map[string]vanishing{
	"file link to nothing": {
		do:   func(v *scenery) { v.mv("a.yaml", ".a"); v.ln(".gone.yaml", "a.yaml") },
		told: "a.yaml", says: "leads to nothing (.gone.yaml)",
		undo: func(v *scenery) { v.mv(".a", ".gone.yaml") },
	},
	"file link to nothing in a hidden directory": {
		do:   func(v *scenery) { v.mv("a.yaml", ".a"); v.ln(".store/v2/a.yaml", "a.yaml") },
		told: "a.yaml", says: "leads to nothing",
		undo: func(v *scenery) { v.mkdir(".store/v2"); v.mv(".a", ".store/v2/a.yaml") },
	},
	"file link under another name, filled later": {
		do:   func(v *scenery) { v.ln(".next/a.yaml", "new.yaml"); v.mv("a.yaml", ".a") },
		told: "new.yaml", says: "leads to nothing",
		undo: func(v *scenery) { v.mkdir(".next"); v.mv(".a", ".next/a.yaml") },
	},
	"..data to nothing": {
		do: func(v *scenery) {
			v.mkdir("..1")
			v.mv("a.yaml", "..1/a.yaml")
			v.ln("..1", "..data")
			v.ln("..data/a.yaml", "a.yaml")
			v.expect(v.settled(), "a b c", "")
			v.mv("..1", "..2")
		},
		told: "a.yaml", says: "leads to nothing (..data/a.yaml)",
		undo: func(v *scenery) { v.rm("..data"); v.ln("..2", "..data") },
	},
	"directory link to nothing": {
		do:   func(v *scenery) { v.mv("sub", ".sub"); v.ln(".other", "sub") },
		told: "sub", says: "leads to nothing (.other)",
		undo: func(v *scenery) { v.mv(".sub", ".other") },
	},
	"link to an unmounted volume": {
		do: func(v *scenery) {
			v.mkdir(".vol/inner")
			v.mount("tmpfs", ".vol", "tmpfs", 0)
			v.mkdir(".vol/sub/deep")
			v.mv("sub", ".sub")
			for _, f := range []string{"b.yaml", "deep/c.yaml"} {
				b, err := os.ReadFile(v.at(".sub/" + f))
				v.must(err)
				v.must(os.WriteFile(v.at(".vol/sub/"+f), b, 0o644))
			}
			v.ln(".vol/sub", "sub")
			v.expect(v.settled(), "a b c", "")
			v.umount(".vol")
		},
		told: "sub", says: "leads to nothing", root: true,
		undo: func(v *scenery) { v.rm("sub"); v.mv(".sub", "sub") },
	},
	"directory link out": {
		do: func(v *scenery) {
			v.must(os.Rename(v.at("sub"), filepath.Join(v.top, "sub")))
			v.ln("../sub", "sub")
		},
		told: "sub", says: "leads out of",
		undo: func(v *scenery) { v.rm("sub"); v.must(os.Rename(filepath.Join(v.top, "sub"), v.at("sub"))) },
	},
	"directory link to itself": {
		do:   func(v *scenery) { v.mv("sub", ".sub"); v.ln("sub", "sub") },
		told: "sub", says: "loop",
		undo: func(v *scenery) { v.rm("sub"); v.mv(".sub", "sub") },
	},
	"file links in a circle": {
		do:   func(v *scenery) { v.mv("a.yaml", ".a"); v.ln(".x", "a.yaml"); v.ln("a.yaml", ".x") },
		told: "a.yaml", says: "loop",
		undo: func(v *scenery) { v.rm("a.yaml"); v.mv(".a", "a.yaml") },
	},
	"directory replaced by an empty one": {
		do:   func(v *scenery) { v.mv("sub", ".sub"); v.mkdir("sub") },
		told: "sub", says: "not the directory that was there before",
		undo: func(v *scenery) { v.rm("sub"); v.mv(".sub", "sub") },
	},
	"deep directory replaced by an empty one": {
		do:   func(v *scenery) { v.mv("sub/deep", ".deep"); v.mkdir("sub/deep") },
		told: "sub/deep", says: "not the directory that was there before",
		undo: func(v *scenery) { v.rm("sub/deep"); v.mv(".deep", "sub/deep") },
	},
	"directory replaced by one of empty directories": {
		do:   func(v *scenery) { v.mv("sub", ".sub"); v.mkdir("sub/deep/er") },
		told: "sub", says: "not the directory that was there before",
		undo: func(v *scenery) { v.rm("sub"); v.mv(".sub", "sub") },
	},
	"directory replaced by a link to an empty one": {
		do:   func(v *scenery) { v.mv("sub", ".sub"); v.mkdir(".empty"); v.ln(".empty", "sub") },
		told: "sub", says: "not the directory that was there before",
		undo: func(v *scenery) { v.rm("sub"); v.ln(".sub", "sub") },
	},
	"directory replaced by a file": {
		do:   func(v *scenery) { v.mv("sub", ".sub"); v.write("sub", "") },
		told: "sub", says: "not the directory that was there before",
		undo: func(v *scenery) { v.rm("sub"); v.mv(".sub", "sub") },
	},
	"directory mounted over": {
		do:   func(v *scenery) { v.mount("tmpfs", "sub", "tmpfs", 0) },
		told: "sub", says: "not the directory that was there before", root: true,
		undo: func(v *scenery) { v.umount("sub") },
	},
	"deep directory mounted over": {
		do:   func(v *scenery) { v.mount("tmpfs", "sub/deep", "tmpfs", 0) },
		told: "sub/deep", says: "not the directory that was there before", root: true,
		undo: func(v *scenery) { v.umount("sub/deep") },
	},
	"mounted directory unmounted": {
		do: func(v *scenery) {
			v.mv("sub", ".sub")
			v.mkdir("sub")
			v.mount(v.at(".sub"), "sub", "", unix.MS_BIND)
			v.expect(v.settled(), "a b c", "")
			v.umount("sub")
		},
		told: "sub", says: "not the directory that was there before", root: true,
		undo: func(v *scenery) { v.mount(v.at(".sub"), "sub", "", unix.MS_BIND) },
	},
	"file replaced by a directory": {
		do:   func(v *scenery) { v.mv("a.yaml", ".a"); v.mkdir("a.yaml") },
		told: "a.yaml", says: "expected a file",
		undo: func(v *scenery) { v.rm("a.yaml"); v.mv(".a", "a.yaml") },
	},
	"file replaced by a directory of others": {
		do:   func(v *scenery) { v.mv("a.yaml", ".a"); v.mkdir("a.yaml/data"); v.write("a.yaml/data/x.txt", "") },
		told: "a.yaml", says: "expected a file",
		undo: func(v *scenery) { v.rm("a.yaml"); v.mv(".a", "a.yaml") },
	},
	"file below replaced by a directory": {
		do:   func(v *scenery) { v.mv("sub/deep/c.yaml", ".c"); v.mkdir("sub/deep/c.yaml") },
		told: "sub/deep/c.yaml", says: "expected a file",
		undo: func(v *scenery) { v.rm("sub/deep/c.yaml"); v.mv(".c", "sub/deep/c.yaml") },
	},
	"file replaced by a link to a directory": {
		do:   func(v *scenery) { v.mv("a.yaml", ".a"); v.mkdir(".d"); v.ln(".d", "a.yaml") },
		told: "a.yaml", says: "expected a regular file",
		undo: func(v *scenery) { v.rm("a.yaml"); v.mv(".a", "a.yaml") },
	},
	"file replaced by a socket": {
		do: func(v *scenery) {
			v.mv("a.yaml", ".a")
			v.must(unix.Mknod(v.at("a.yaml"), unix.S_IFSOCK|0o600, 0))
		},
		told: "a.yaml", says: "expected a regular file",
		undo: func(v *scenery) { v.rm("a.yaml"); v.mv(".a", "a.yaml") },
	},
	"directory link to a file": {
		do:   func(v *scenery) { v.mv("sub", ".sub"); v.write(".file", ""); v.ln(".file", "sub") },
		told: "sub", says: "not the directory that was there before",
		undo: func(v *scenery) { v.rm("sub"); v.mv(".sub", "sub") },
	},
	"mounted file unmounted": {
		do: func(v *scenery) {
			v.mv("a.yaml", ".a")
			v.write("a.yaml", "")
			v.mount(v.at(".a"), "a.yaml", "", unix.MS_BIND)
			v.expect(v.settled(), "a b c", "")
			v.umount("a.yaml")
		},
		told: "a.yaml", says: "empty", root: true,
		undo: func(v *scenery) { v.mount(v.at(".a"), "a.yaml", "", unix.MS_BIND) },
	},
}

func TestDirVanishing(t *testing.T) {
	t.Parallel()
	for name, c := range vanishings {
		for _, restart := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " and a restart"}[restart], func(t *testing.T) {
				t.Parallel()
				if !c.root {
					c.run(t, restart)
					return
				}
				inMountNS(t, func() { c.run(t, restart) })
			})
		}
	}
}

func (c *vanishing) run(t *testing.T, restart bool) {
	v := &scenery{newTree(t, Options{PollEvery: settle})}
	for n, f := range keep {
		v.write(strings.Replace(f, "sub/c", "sub/deep/c", 1), named(n))
	}
	v.mv("b.yaml", "sub/b.yaml")
	v.expect(v.settled(), "a b c", "")
	c.do(v)
	if restart {
		mem := v.dir.Memory()
		opts := v.dir.opts
		opts.Memory, opts.Expected = &mem, true
		v.dir = New(opts)
	}
	for began := time.Now(); time.Since(began) < 5*settle; time.Sleep(settle / 4) {
		s := v.load()
		for n := range keep {
			if s.Removed(n, "") {
				t.Fatalf("%s is taken for removed: %q complete %v", n, names(s), s.Complete)
			}
		}
	}
	s := v.settled()
	v.expect(s, names(s), desired.ReasonInvalidManifests)
	if len(s.Problems) == 0 || s.Problems[0].File != c.told || !strings.Contains(s.Problems[0].Message, c.says) {
		t.Errorf("told: %v, expected %s: … %s", s.Problems, c.told, c.says)
	}
	// Somebody who only looks is told the same.
	mem := v.dir.Memory()
	once, err := New(Options{Path: v.at(""), Once: true, BootID: "boot", Memory: &mem, Expected: true}).Load(t.Context())
	if err != nil || len(once.Problems) != len(s.Problems) || once.Problems[0].Error() != s.Problems[0].Error() {
		t.Errorf("at one look: %+v %v", once, err)
	}
	c.undo(v)
	v.expect(v.settled(), "a b c", "")
}

// What an author removes is removed, however the directory looks else.
func TestDirRemovals(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(v *scenery){
		"a file":                 func(v *scenery) { v.rm("a.yaml") },
		"a link":                 func(v *scenery) { v.mv("a.yaml", ".a"); v.ln(".a", "a.yaml"); v.settled(); v.rm("a.yaml") },
		"a directory":            func(v *scenery) { v.rm("sub") },
		"what a directory holds": func(v *scenery) { v.rm("sub/a.yaml") },
		"a directory, moved":     func(v *scenery) { v.must(os.Rename(v.at("sub"), filepath.Join(v.top, "elsewhere"))) },
		"a link to a directory":  func(v *scenery) { v.mv("sub", ".sub"); v.ln(".sub", "sub"); v.settled(); v.rm("sub") },
		"the directory of another tree": func(v *scenery) {
			// A checkout beside the old one, as git-sync makes it, with a directory that
			// has no manifest any more.
			next := filepath.Join(v.top, "next")
			v.must(errors.Join(os.MkdirAll(filepath.Join(next, "sub"), 0o755), os.WriteFile(filepath.Join(next, "sub", "README"), nil, 0o644),
				os.WriteFile(filepath.Join(next, "kept.yaml"), []byte(named("kept")), 0o644)))
			v.must(unix.Renameat2(unix.AT_FDCWD, v.at(""), unix.AT_FDCWD, next, unix.RENAME_EXCHANGE))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := &scenery{newTree(t, Options{})}
			v.write("kept.yaml", named("kept"))
			v.write("a.yaml", named("a"))
			if strings.Contains(name, "director") {
				v.mkdir("sub")
				v.mv("a.yaml", "sub/a.yaml")
			}
			v.expect(v.settled(), "a kept", "")
			do(v)
			s := v.settled()
			v.expect(s, "kept", "")
			if !s.Removed("a", "") {
				t.Error("a is not taken for removed")
			}
		})
	}
}
