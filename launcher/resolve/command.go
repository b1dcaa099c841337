// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/hostfs"
)

// checkCommand says in advance that a container's command is not in its root,
// in runc's words, by which clients choose an exit code. gVisor would say it at
// the start, when clients listen no more. It is sure or silent: where a mount
// may bring the command, or a file can't be looked at, the start will tell.
func checkCommand(cfg *specs.Spec, root string) error {
	for _, m := range cfg.Mounts {
		if !leavesPrograms(m.Destination) {
			return nil
		}
	}
	dir, err := hostfs.OpenAt(unix.AT_FDCWD, root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil //nolint:nilerr // opening it to be served says so better
	}
	defer dir.Close()
	name := cfg.Process.Args[0]
	if strings.Contains(name, "/") {
		p := name
		if !path.IsAbs(p) {
			p = path.Join(cfg.Process.Cwd, p)
		}
		if missing(int(dir.Fd()), p) {
			return fmt.Errorf("exec: %q: stat %s: no such file or directory", name, p)
		}
		return nil
	}
	for _, e := range cfg.Process.Env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for d := range strings.SplitSeq(list, ":") {
			if !path.IsAbs(d) || !missing(int(dir.Fd()), path.Join(d, name)) {
				return nil
			}
		}
		break
	}
	return fmt.Errorf("exec: %q: executable file not found in $PATH", name)
}

// Lasting makes an error of a command permanent that stays until the manifest, the image or a
// file that restarts the sandbox changes: the image has a digest, so its programs are the same
// at each try. Programs of any other root, or of a volume of the host, may be put right there.
func Lasting(err error, s *desired.Spec) error {
	if !operation.PreconditionFailed(err) || s.Root.Image == nil {
		return err
	}
	for i := range s.Volumes {
		if v := &s.Volumes[i]; v.HostPath != "" || v.Volume != nil {
			return err
		}
	}
	for _, ref := range s.FileRefs() {
		// A change of another one starts no sandbox that has stopped.
		if ref.OnChange != desired.OnChangeRestart {
			return err
		}
	}
	return operation.Permanentf("%w", err)
}

// leavesPrograms says of a mount that it is one of those that every container
// has, none of which brings a command.
func leavesPrograms(dest string) bool {
	for _, p := range []string{"/proc", "/sys", "/dev", "/etc", "/tmp", "/run"} {
		if dest == p || strings.HasPrefix(dest, p+"/") {
			return true
		}
	}
	return false
}

// missing says that there is nothing at a path of the tree, links followed
// inside of it.
func missing(root int, p string) bool {
	if leavesPrograms(path.Clean(p)) {
		return false
	}
	f, err := dirfd.Open(root, strings.TrimLeft(p, "/"), unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if err == nil {
		f.Close()
	}
	return errors.Is(err, unix.ENOENT)
}
