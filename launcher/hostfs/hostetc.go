// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// hostEtc are patterns for the parts of /etc that programs below /usr have links
// to, or do not run without: configuration of runtimes and libraries. Nothing of
// it identifies the host; passwd, group, hosts and the like are generated. What
// not every user of the host may read is left out, wherever it is in it.
var hostEtc = []string{
	"alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
	"locale.alias", localtime, "mime.types", "pki/ca-trust", "pki/java", "pki/tls/certs", "protocols", "services",
	"ssl/certs", "ssl/openssl.cnf",
	// Runtimes and tools.
	"ImageMagick-*", "ant", "erlang", "ghostscript", "gnuplot*", "groff", "java", "java-*", "jvm-*", "magic", "magic.mime",
	"mailcap", "maven*", "perl", "python*", "R", "terminfo", "texmf", "xml", "sgml",
	// Fonts and graphics.
	"OpenCL", "X11/cursors", "X11/fonts", "fonts", "glvnd", "gtk-*", "pango", "vulkan",
}

// maxHostEtc bounds the entries that one part of /etc may have.
const maxHostEtc = 20_000

// addHostEtc shows the parts of the directory etc, which is /etc, that hostEtc
// names. ownZone says that the sandbox has a time zone of its own.
func addHostEtc(t *gofer.Tree, etc string, ownZone bool, toGofer *proc.Donation, binds *[]*tree) error {
	for _, pattern := range hostEtc {
		if ownZone && pattern == localtime {
			continue
		}
		found, err := filepath.Glob(filepath.Join(etc, pattern))
		if err != nil {
			return fmt.Errorf("look for %s: %w", pattern, err)
		}
		for _, path := range found {
			// What is in a directory that others may not enter is not for them either.
			if parent, err := os.Stat(filepath.Dir(path)); err != nil || parent.Name() != filepath.Base(etc) && !isPublic(parent) {
				continue //nolint:nilerr // it was removed, or can't be looked at
			}
			name := "etc" + strings.TrimPrefix(path, etc)
			// Making a directory twice is no error, so each entry brings its own.
			for i, c := range name {
				if c == '/' && i > len("etc") {
					t.Dirs = append(t.Dirs, gofer.Dir{Path: name[:i], Mode: 0o755})
				}
			}
			if err := addPublic(t, path, name, toGofer, binds); err != nil {
				return err
			}
		}
	}
	return nil
}

// addPublic shows a path of the host at name, if every user of the host may read
// it. A directory is shown as a whole if that holds for all that is in it, and
// otherwise piece by piece: the gofer is root, and would serve the rest too.
func addPublic(t *gofer.Tree, path, name string, toGofer *proc.Donation, binds *[]*tree) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !isPublic(info) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if !info.IsDir() {
		return addHost(t, path, name, toGofer, binds)
	}
	entries, whole, err := publicEntries(path)
	if err != nil {
		return err
	}
	if whole {
		return addHost(t, path, name, toGofer, binds)
	}
	t.Dirs = append(t.Dirs, gofer.Dir{Path: name, Mode: 0o755})
	for _, e := range entries {
		rel := name + strings.TrimPrefix(e.path, path)
		if e.dir {
			t.Dirs = append(t.Dirs, gofer.Dir{Path: rel, Mode: 0o755})
		} else if err := addHost(t, e.path, rel, toGofer, binds); err != nil {
			return err
		}
	}
	return nil
}

type publicEntry struct {
	path string
	dir  bool
}

// publicEntries are the entries below a directory that every user may read,
// parents first, and whether these are all.
func publicEntries(dir string) (out []publicEntry, whole bool, err error) {
	whole = true
	err = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == dir {
			return nil
		}
		if len(out) == maxHostEtc {
			return fmt.Errorf("%s: more than %d entries", dir, maxHostEtc)
		}
		// A link tells nothing but where it leads to.
		if e.Type()&fs.ModeSymlink == 0 {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if !isPublic(info) {
				whole = false
				if e.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
		}
		out = append(out, publicEntry{p, e.IsDir()})
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("look into %s: %w", dir, err)
	}
	return out, whole, nil
}

// isPublic says whether every user of the host may read something, and nobody
// but root has written it: others could have put a link to a secret there.
func isPublic(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid != 0 {
		return false
	}
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		return true
	case mode.Perm()&0o022 != 0 || secretName(info.Name()):
		return false
	case mode.IsDir():
		return mode.Perm()&0o005 == 0o005
	default:
		return mode.IsRegular() && mode.Perm()&0o004 != 0
	}
}

// secretName says of a name that it is usually a secret's: an administrator may
// have forgotten its mode.
func secretName(name string) bool {
	n := strings.ToLower(name)
	return slices.Contains([]string{"private", "shadow", "gshadow"}, n) || strings.HasSuffix(n, ".key") || strings.HasSuffix(n, ".password") ||
		strings.HasSuffix(n, ".p12") || strings.HasSuffix(n, ".keytab")
}

// addUser lets the user of a sandbox have a name and a home directory: programs
// ask for both.
func addUser(t *gofer.Tree, s setup.Source) (passwd, group string) {
	passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n" +
		"www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"
	group = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\n"
	if u := s.User; u != nil {
		if !slices.Contains([]uint32{0, 1, 33, nobodyID}, u.UID) {
			passwd += fmt.Sprintf("user:x:%d:%d:user:/home/user:/bin/sh\n", u.UID, u.GID)
			if s.Maps.Maps(u.UID, u.GID) {
				t.Dirs = append(t.Dirs, gofer.Dir{Path: "home/user", Mode: 0o700})
				t.Owners = append(t.Owners, gofer.Owner{Path: "home/user", UID: u.UID, GID: u.GID})
			} else {
				// It can't be given to ids that are nobody's on the host.
				t.Dirs = append(t.Dirs, gofer.Dir{Path: "home/user", Mode: 0o777})
			}
		}
		named := []uint32{0, 1, 5, 33, nobodyID}
		for i, g := range append([]uint32{u.GID}, u.Groups...) {
			if slices.Contains(named, g) {
				continue
			}
			named = append(named, g)
			if i == 0 {
				group += fmt.Sprintf("user:x:%d:\n", g)
			} else {
				group += fmt.Sprintf("group%d:x:%d:user\n", g, g)
			}
		}
	}
	return passwd + "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n", group + "nogroup:x:65534:\n"
}

const nobodyID = 65534
