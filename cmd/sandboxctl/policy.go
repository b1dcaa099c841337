// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
)

// policyFile is the host policy that this run judges by: the one that was asked
// for, or the one the daemon uses, or the system's.
func (a *app) policyFile(daemon *actual.DaemonInfo) *desired.PolicyFile {
	opts := desired.PolicyOptions{Path: desired.DefaultPolicyPath, Optional: true, Protected: []string{a.manifests, a.state}}
	switch {
	case a.policy != "":
		opts.Path, opts.Optional = a.policy, false
	case daemon != nil && daemon.HostPolicy.Path != "":
		opts.Path, opts.Optional = daemon.HostPolicy.Path, daemon.HostPolicy.Optional
	}
	return desired.NewPolicyFile(opts)
}

// readDaemon is what the last daemon said of itself, nil if nothing.
func (a *app) readDaemon() *actual.DaemonInfo {
	store, err := actual.OpenStoreReadOnly(a.state)
	if err != nil {
		return nil // nothing has run yet, or it is not for us to read
	}
	defer store.Close()
	info, _, err := store.DaemonInfo()
	if err != nil {
		fmt.Fprintf(a.stderr, "warning: %s\n", clean(err.Error()))
		return nil
	}
	return info
}

// hostPolicy is the policy to judge manifests by that are not in the directory.
func (a *app) hostPolicy() (*desired.HostPolicy, error) {
	return a.policyFile(a.readDaemon()).Load()
}

// notePolicy says so when what was computed is not what the daemon computes.
func (v *viewer) notePolicy() {
	if d := v.info; v.alive && v.a.policy != "" && d.HostPolicy.Path != "" && d.HostPolicy.Path != v.a.policy {
		fmt.Fprintf(v.a.stderr, "warning: judged by the host policy %s; the daemon uses %s\n", clean(v.a.policy), clean(d.HostPolicy.Path))
	}
}

// checkPolicy looks at the host policy.
func (a *app) checkPolicy(w *world) finding {
	const check = "host policy"
	file := a.policyFile(w.daemon)
	p, err := file.Load()
	switch {
	case err != nil:
		return finding{check, levelError, fmt.Sprintf("%v: nothing is created, changed or stopped until it is mended", err)}
	case w.alive && w.daemon.HostPolicy.Path != file.Path():
		return finding{check, levelWarning, fmt.Sprintf("%s is fine; the daemon uses %s", file.Path(), w.daemon.HostPolicy.Path)}
	case w.alive && w.daemon.HostPolicy.Digest != p.Digest():
		return finding{check, levelWarning, p.Source() + " is fine, and the daemon has not taken notice of it yet"}
	case p.Source() != file.Path():
		return finding{check, levelOK, fmt.Sprintf("built-in; there is no %s", file.Path())}
	}
	return finding{check, levelOK, p.Source()}
}

// watchPolicy wakes the loop when the file of the policy may have changed.
// Without a watch that is noticed at the next resync.
func (d *daemon) watchPolicy(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	dir := filepath.Dir(d.policy.Path())
	at := dir
	for err = w.Add(at); err != nil; err = w.Add(at) {
		// What is missing may come: its parent tells.
		if at == "/" {
			return err
		}
		at = filepath.Dir(at)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-w.Events:
			if !strings.HasPrefix(ev.Name+"/", dir+"/") && !strings.HasPrefix(dir, ev.Name+"/") {
				continue // a neighbour of what is missing
			}
			d.loop.Wake()
			_ = w.Add(dir) // it may be there only now, or be another one
		case err := <-w.Errors:
			d.log.Warn("a change of the host policy may be noticed late", "err", err)
			d.loop.Wake()
		}
	}
}
