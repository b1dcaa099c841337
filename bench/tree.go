// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// debianTar makes the root that images are made of, with what Debian's tools write, if it
// is not there from an earlier run.
func (b *bench) debianTar(path string) error {
	if _, err := os.Stat(path); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	b.progress("images: downloading and unpacking Debian packages (some minutes)")
	tmp := path + ".new"
	cmd := apart(exec.CommandContext(b.ctx, "mmdebstrap", "--quiet", "--mode=root", "--variant=essential", "--dpkgopt=force-unsafe-io",
		"--include=busybox-static,redis-server,redis-tools,postgresql", "--format=tar", "bookworm", tmp))
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // it unmounts and removes its root then
	if _, err := output(cmd); err != nil {
		return errors.Join(fmt.Errorf("make a Debian with Redis and PostgreSQL (apt-get install mmdebstrap, or name a tar of one with -tree): %w", err), os.RemoveAll(tmp))
	}
	return os.Rename(tmp, path)
}

// unpack makes a directory of a tar, for what takes no image.
func unpack(tar, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	_, err := output(apart(exec.Command("tar", "--numeric-owner", "--exclude=./dev/*", "-xpf", tar, "-C", dir)))
	return err
}

// idsOf are the numbers of a user of a root.
func idsOf(root, user string) (uid, gid int, err error) {
	text, err := os.ReadFile(filepath.Join(root, "etc", "passwd"))
	if err != nil {
		return 0, 0, err
	}
	for l := range strings.Lines(string(text)) {
		if f := strings.Split(l, ":"); len(f) > 3 && f[0] == user {
			uid, err1 := strconv.Atoi(f[2])
			gid, err2 := strconv.Atoi(f[3])
			return uid, gid, errors.Join(err1, err2)
		}
	}
	return 0, 0, fmt.Errorf("the root has no user %s", user)
}
