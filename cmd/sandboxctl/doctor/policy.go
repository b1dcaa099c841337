// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/hostfs"
)

// checkPolicy looks at the host policy.
func (d doctor) checkPolicy() []finding {
	const check = "host policy"
	daemon, alive := d.ReadDaemon()
	file := d.PolicyFile(daemon)
	path := file.Options().Path
	p, err := file.Load()
	if err != nil {
		return []finding{{check, levelError, fmt.Sprintf("%v: nothing is created, changed or stopped until that is fixed", err)}}
	}
	out := []finding{{check, levelOK, p.Source()}}
	switch {
	case alive && daemon.HostPolicy.Path != path:
		out[0] = finding{check, levelWarning, fmt.Sprintf("%s is fine; the daemon uses %s", path, daemon.HostPolicy.Path)}
	case alive && daemon.HostPolicy.Digest != p.Digest():
		out[0] = finding{check, levelWarning, p.Source() + " is fine, and the daemon has not taken notice of it yet"}
	case p.Source() != path:
		out[0].Message = fmt.Sprintf("built-in; there is no %s", path)
		return out // its one directory is there when somebody needs it
	}
	for _, allowed := range slices.Concat(p.HostPaths, p.Root.Dirs, p.Root.Bundles, p.Root.ImagePaths) {
		switch real, err := filepath.EvalSymlinks(allowed.Path); {
		case err != nil:
			out = append(out, finding{check, levelWarning, fmt.Sprintf("nothing can be shared of what it allows: %v", err)})
		case real != allowed.Path:
			out = append(out, finding{check, levelWarning, fmt.Sprintf("%s leads through a symbolic link, and nothing of it is shared; allow %s", allowed.Path, real)})
		}
	}
	for _, err := range neverShared(p) {
		out = append(out, finding{check, levelWarning, fmt.Sprintf("nothing that holds it is shared: %v", err)})
	}
	slices.SortFunc(out[1:], func(a, b finding) int { return strings.Compare(a.Message, b.Message) })
	return slices.Compact(out)
}

// neverShared says which paths that a policy allows show what is sandboxctl's own,
// by a mount that their names don't tell of.
func neverShared(p *hostpolicy.Policy) (errs []error) {
	table, err := hostfs.ReadTable()
	if err != nil {
		return []error{err}
	}
	var own []hostfs.Own
	for _, path := range p.Protected() {
		spot, err := hostfs.SpotAt(path)
		if err != nil {
			return []error{err}
		}
		own = append(own, hostfs.Own{Spot: spot, Name: path})
	}
	for _, path := range p.Trusted() {
		spot, err := hostfs.SpotAt(path)
		if err != nil {
			return []error{err}
		}
		own = append(own, hostfs.Own{Spot: spot, Name: path, Writes: true})
	}
	never, err := table.NeverShared(own)
	if err != nil {
		return []error{err}
	}
	for _, allowed := range slices.Concat(p.HostPaths, p.Root.Dirs, p.Root.Bundles, p.Root.ImagePaths) {
		f, err := os.OpenFile(allowed.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // told already
		}
		spot, err := hostfs.SpotOf(f)
		f.Close()
		if err == nil {
			_, err = table.Check(spot, allowed.Access == hostpolicy.AccessReadOnly, false, never)
		}
		errs = append(errs, err)
	}
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}
