// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/setup"
)

// hostDirs are the directories of the host that a host root shows: programs
// and libraries, which every user of the host may read anyway.
var hostDirs = []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// hostRootField is where a manifest asks for the view of the host.
const hostRootField = "spec.root.host"

// hostTree describes the root of `root.host`: a tmpfs with read-only mounts of
// the host's programs, a generated /etc and empty standard directories. Its
// mounts are given to the gofer, and returned.
func hostTree(s setup.Source, m *gofer.Mount, toGofer *proc.Donation) (binds []*tree, err error) {
	m.Tree = &gofer.Tree{Dirs: []gofer.Dir{
		{Path: "dev", Mode: 0o755},
		{Path: "etc", Mode: 0o755},
		{Path: "home", Mode: 0o755},
		{Path: "mnt", Mode: 0o755},
		{Path: "opt", Mode: 0o755},
		{Path: "proc", Mode: 0o755},
		{Path: "root", Mode: 0o700},
		{Path: "run", Mode: 0o755},
		{Path: "srv", Mode: 0o755},
		{Path: "sys", Mode: 0o755},
		{Path: "tmp", Mode: 0o1777},
		{Path: "var", Mode: 0o755},
		{Path: "var/cache", Mode: 0o755},
		{Path: "var/lib", Mode: 0o755},
		{Path: "var/log", Mode: 0o755},
		{Path: "var/tmp", Mode: 0o1777},
	}}
	t := m.Tree
	for _, d := range hostDirs {
		if err := addHost(t, "/"+d, d, toGofer, &binds); err != nil {
			return nil, err
		}
	}
	if err := addHostEtc(t, "/etc", s.Zone != nil, toGofer, &binds); err != nil {
		return nil, err
	}
	addZone(t, s.Zone)
	return binds, addEtc(t, s)
}

// addHost shows a path of the host at name: a link as the same link (as /bin on
// a host with a merged /usr), anything else as a read-only mount. What the host
// does not have is left out.
func addHost(t *gofer.Tree, path, name string, toGofer *proc.Donation, binds *[]*tree) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(path)
		if err != nil {
			return fmt.Errorf("look at %s: %w", path, err)
		}
		t.Links = append(t.Links, gofer.Link{Path: name, Target: target})
		return nil
	}
	bind, err := detach(setup.Source{Path: path, ReadOnly: true, Field: hostRootField})
	if err != nil {
		return err
	}
	t.Binds = append(t.Binds, gofer.Bind{Path: name, FD: toGofer.Give(bind.mount), IsDir: bind.isDir})
	*binds = append(*binds, bind)
	return nil
}

// addEtc generates the files of /etc that must not be the host's own.
func addEtc(t *gofer.Tree, s setup.Source) error {
	passwd, group := addUser(t, s)
	for name, content := range map[string]string{
		"passwd":        passwd,
		"group":         group,
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
		"os-release":    osRelease(),
	} {
		t.Files = append(t.Files, gofer.File{Path: "etc/" + name, Mode: 0o644, Content: content})
	}
	names, links, err := NetworkFiles(s)
	t.Files, t.Links = append(t.Files, names...), append(t.Links, links...)
	return err
}

// NetworkFiles are the files that say what a sandbox is called and who answers it:
// whatever its root is, they are its own.
func NetworkFiles(s setup.Source) (files []gofer.File, links []gofer.Link, err error) {
	files = []gofer.File{{Path: "etc/hostname", Mode: 0o644, Content: s.Hostname + "\n"}}
	if s.HostsAt != "" {
		links = append(links, gofer.Link{Path: "etc/hosts", Target: s.HostsAt})
	} else {
		files = append(files, gofer.File{Path: "etc/hosts", Mode: 0o644, Content: "127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 " + s.Hostname + "\n"})
	}
	// Where nothing is reachable there is no resolver: a lookup fails at once
	// instead of waiting for a time-out.
	conf := gofer.File{Path: "etc/resolv.conf", Mode: 0o644, Content: s.ResolvConf}
	if s.Resolver != "" {
		b, err := os.ReadFile(s.Resolver)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("read resolver configuration: %w", err)
		}
		conf.Content = string(b)
	}
	return append(files, conf), links, nil
}

// osRelease is the host's, since its programs are: some of them ask.
func osRelease() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil || strings.ContainsRune(string(b), 0) {
		return "ID=linux\n"
	}
	return string(b)
}

// ShowsHost says whether a host root shows a path as the host has it.
func ShowsHost(p string) bool {
	return slices.ContainsFunc(hostDirs, func(d string) bool { return strings.HasPrefix(p, "/"+d+"/") })
}
