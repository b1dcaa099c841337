// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/ownjson"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/manifestdir"
	"sandboxctl.dev/launcher/image"
)

// Host is what a verb is for: the directories of a host, as the global flags say,
// and the streams of this run of the program.
type Host struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	Manifests string
	State     string
	Policy    string // "" if not given
}

// StatePath is the path of the state directory without links, whether it is there
// or not: what its processes carry.
func (h *Host) StatePath() string {
	if p, err := filepath.EvalSymlinks(h.State); err == nil {
		if abs, err := filepath.Abs(p); err == nil {
			return abs
		}
	}
	at, err := filepath.Abs(h.State)
	if err != nil {
		return h.State
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(at)); err == nil {
		at = filepath.Join(parent, filepath.Base(at))
	}
	return at
}

// OpenStore opens the state directory to read it.
func (h *Host) OpenStore() (*actual.Store, error) {
	s, err := actual.OpenStoreReadOnly(h.State)
	if errors.Is(err, actual.ErrNoState) {
		return nil, fmt.Errorf("%w; has `sandboxctl daemon` ever run with --state %s?", err, h.State)
	}
	return s, err
}

// MemoryOf is what a daemon remembers of the manifests directory, nil if nothing.
func (h *Host) MemoryOf(daemon *actual.DaemonInfo) *manifestdir.Memory {
	if daemon == nil || len(daemon.Memory) == 0 || daemon.ManifestsDir != h.Manifests {
		return nil
	}
	m := new(manifestdir.Memory)
	if err := ownjson.Unmarshal(daemon.Memory, m); err != nil {
		// As for the daemon: what it knew is lost, and no more.
		fmt.Fprintf(h.Stderr, "warning: can't read what the daemon has saved about the manifests directory: %s\n", show.Clean(err.Error()))
		return nil
	}
	return m
}

// PolicyFile is the host policy that this run judges by: the one that was asked
// for, or the one the daemon uses, or the system's.
func (h *Host) PolicyFile(daemon *actual.DaemonInfo) *hostpolicy.File {
	opts := hostpolicy.Options{Path: hostpolicy.DefaultPath, Optional: true, Protected: []string{
		h.Manifests, h.State, ocicmd.DefaultRoot,
		// It may be a link to a larger disk.
		filepath.Join(h.State, image.Directory),
		// Who writes it has registries trusted without TLS.
		image.RegistriesPath,
	}}
	if daemon != nil && daemon.Registries != "" {
		opts.Protected = append(opts.Protected, daemon.Registries)
		opts.Trusted = certificates(image.RegistriesPath, daemon.Registries)
	} else {
		opts.Trusted = certificates(image.RegistriesPath)
	}
	switch {
	case h.Policy != "":
		opts.Path, opts.Optional = h.Policy, false
	case daemon != nil && daemon.HostPolicy.Path != "":
		opts.Path, opts.Optional = daemon.HostPolicy.Path, daemon.HostPolicy.Optional
	}
	return hostpolicy.NewFile(opts)
}

// ReadDaemon is what the last daemon said of itself, nil if nothing, and whether
// it lives.
func (h *Host) ReadDaemon() (info *actual.DaemonInfo, alive bool) {
	store, err := actual.OpenStoreReadOnly(h.State)
	if err != nil {
		return nil, false // nothing has run yet, or it is not for us to read
	}
	defer store.Close()
	info, live, err := store.DaemonInfo()
	if err != nil {
		fmt.Fprintf(h.Stderr, "warning: %s\n", show.Clean(err.Error()))
		return nil, false
	}
	return info, live == process.Alive
}

// HostPolicy is the policy to judge manifests by that are not in the directory.
func (h *Host) HostPolicy() (*hostpolicy.Policy, error) {
	daemon, _ := h.ReadDaemon()
	return h.PolicyFile(daemon).Load()
}

// Request leaves a request for the daemon.
func (h *Host) Request(r actual.Request) error {
	store, err := h.OpenStore()
	if err != nil {
		return err
	}
	defer store.Close()
	return store.PutRequest(r)
}

// Withdraw takes a request back.
func (h *Host) Withdraw(r actual.Request) error {
	store, err := h.OpenStore()
	if err != nil {
		return err
	}
	defer store.Close()
	return store.WithdrawRequest(r)
}
