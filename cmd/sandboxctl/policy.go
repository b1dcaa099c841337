// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/launcher/hostfs"
)

// policyFile is the host policy that this run judges by: the one that was asked
// for, or the one the daemon uses, or the system's.
func (a *app) policyFile(daemon *actual.DaemonInfo) *hostpolicy.File {
	opts := hostpolicy.Options{Path: hostpolicy.DefaultPath, Optional: true, Protected: []string{a.manifests, a.state, ocicmd.DefaultRoot}}
	switch {
	case a.policy != "":
		opts.Path, opts.Optional = a.policy, false
	case daemon != nil && daemon.HostPolicy.Path != "":
		opts.Path, opts.Optional = daemon.HostPolicy.Path, daemon.HostPolicy.Optional
	}
	return hostpolicy.NewFile(opts)
}

// readDaemon is what the last daemon said of itself, nil if nothing, and whether
// it lives.
func (a *app) readDaemon() (info *actual.DaemonInfo, alive bool) {
	store, err := actual.OpenStoreReadOnly(a.state)
	if err != nil {
		return nil, false // nothing has run yet, or it is not for us to read
	}
	defer store.Close()
	info, live, err := store.DaemonInfo()
	if err != nil {
		fmt.Fprintf(a.stderr, "warning: %s\n", show.Clean(err.Error()))
		return nil, false
	}
	return info, live == actual.Alive
}

// hostPolicy is the policy to judge manifests by that are not in the directory.
func (a *app) hostPolicy() (*hostpolicy.Policy, error) {
	daemon, _ := a.readDaemon()
	return a.policyFile(daemon).Load()
}

// notePolicy says so when what was computed is not what the daemon computes.
func (v *viewer) notePolicy() {
	if d := v.info; v.alive && v.a.policy != "" && d.HostPolicy.Path != "" && d.HostPolicy.Path != v.a.policy {
		fmt.Fprintf(v.a.stderr, "warning: judged by the host policy %s; the daemon uses %s\n", show.Clean(v.a.policy), show.Clean(d.HostPolicy.Path))
	}
}

// policy is what the daemon judges by, also when it is another one than at the
// last look.
func (v *viewer) policy() (desired.Policy, error) {
	f := v.a.policyFile(v.info)
	if v.file == nil || v.file.Options().Path != f.Options().Path || v.file.Options().Optional != f.Options().Optional {
		v.file = f
	}
	return v.file.Policy()
}

// checkPolicy looks at the host policy.
func (a *app) checkPolicy() []finding {
	const check = "host policy"
	daemon, alive := a.readDaemon()
	file := a.policyFile(daemon)
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
	for _, allowed := range slices.Concat(p.HostPaths, p.Root.Dirs, p.Root.Bundles) {
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
	never, err := table.NeverShared(own)
	if err != nil {
		return []error{err}
	}
	for _, allowed := range slices.Concat(p.HostPaths, p.Root.Dirs, p.Root.Bundles) {
		f, err := os.OpenFile(allowed.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // told already
		}
		spot, err := hostfs.SpotOf(f)
		f.Close()
		if err == nil {
			_, err = table.Check(spot, allowed.Access == hostpolicy.AccessReadOnly, never)
		}
		errs = append(errs, err)
	}
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

// watchPolicy wakes the loop when the file of the policy may have changed.
// Without a watch that is noticed at the next resync.
func (d *daemon) watchPolicy(ctx context.Context) error {
	return watchFile(ctx, d.policy.Options().Path, d.loop.Wake, func(err error) {
		d.log.Warn("a change of the host policy may be noticed late", "err", err)
	})
}
