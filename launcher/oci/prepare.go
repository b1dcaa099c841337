// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher"
	"sandboxctl.dev/launcher/hooks"
)

// Prepared is an id that is claimed for the container of a bundle. Create makes the
// container; Release must be called in any case, and frees an id that has none.
//
// Its caller learns what streams the application wants before it has any: so nothing
// here asks back for them in the middle of a creation.
type Prepared struct {
	r      *Runtime
	id     string
	bundle string
	cfg    *specs.Spec
	lock   *actual.SandboxLock
	given  bool // to the launcher, which frees the id if it fails
}

// Prepare reads a bundle, of which path is the absolute path, and claims an id.
func (r *Runtime) Prepare(id, path string) (*Prepared, error) {
	cfg, err := readBundle(path)
	if err != nil {
		return nil, err
	}
	// Before there is a record: what lives of an id that was lost must not get a
	// second container beside it.
	if err := r.launcher.CheckStrays(id); err != nil {
		return nil, err
	}
	lock, err := r.store.ClaimLocked(id)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w: %s", ErrExist, id)
	}
	if err != nil {
		return nil, err
	}
	return &Prepared{r: r, id: id, bundle: path, cfg: cfg, lock: lock}, nil
}

// Terminal says whether the application wants a terminal.
func (p *Prepared) Terminal() bool { return p.cfg.Process != nil && p.cfg.Process.Terminal }

// Release gives the id to others: to create a container of it, if there is none, or to
// start and delete it.
func (p *Prepared) Release() error {
	var err error
	if !p.given {
		err = p.r.store.Remove(p.id)
	}
	return errors.Join(err, p.lock.Release())
}

// Create are the arguments of Prepared.Create.
type Create struct {
	// Streams are those of the application. None are needed if it has a terminal that
	// is sent to ConsoleSocket.
	Streams [3]*os.File
	// Preserved are its descriptors from 3 on.
	Preserved []*os.File
	// ConsoleSocket is where the master side of the terminal is sent.
	ConsoleSocket string
	// PIDFile is written last, whole, with the pid of the sentry.
	PIDFile string
}

// Create makes the container as far as the created state.
func (p *Prepared) Create(ctx context.Context, c Create) (err error) {
	switch {
	case c.ConsoleSocket != "" && !p.Terminal():
		return errors.New("--console-socket is given and process.terminal is not set")
	case c.ConsoleSocket != "":
		tty, err := OpenTerminal(c.ConsoleSocket, p.cfg.Process.ConsoleSize)
		if err != nil {
			return err
		}
		defer tty.Close()
		c.Streams = [3]*os.File{tty, tty, tty}
	case p.Terminal() && c.Streams[0] == nil:
		return errNoTerminal
	}
	p.given = true
	pid, err := p.r.launcher.CreateContainer(ctx, &launcher.Container{ID: p.id, Bundle: p.bundle, Spec: p.cfg, Streams: c.Streams, Preserved: c.Preserved})
	if err != nil {
		return err
	}
	if err := p.afterCreate(ctx, c.PIDFile, pid); err != nil {
		ctx = context.WithoutCancel(ctx)
		if rerr := p.r.remove(ctx, p.id); rerr != nil {
			return errors.Join(err, rerr)
		}
		p.r.poststop(ctx, p.cfg, p.id, p.bundle)
		return err
	}
	return nil
}

// afterCreate does what needs the pid of the container.
func (p *Prepared) afterCreate(ctx context.Context, pidFile string, pid int) error {
	if h := p.cfg.Hooks; h != nil {
		// What State says by now: all that a hook could look at is there.
		state := p.r.stateOf(p.cfg, p.id, p.bundle, StatusCreated, pid)
		//nolint:staticcheck // Prestart is deprecated in the spec and still in bundles
		for _, set := range []hooks.Set{
			{Kind: "prestart", Hooks: h.Prestart, Env: os.Environ()},
			{Kind: "createRuntime", Hooks: h.CreateRuntime, Env: os.Environ()},
			// As with runc: they belong to the container.
			{Kind: "createContainer", Hooks: h.CreateContainer, Env: processEnv(p.cfg)},
		} {
			if err := set.Run(ctx, state); err != nil {
				return err
			}
		}
	}
	if pidFile != "" {
		return WritePIDFile(pidFile, pid)
	}
	return nil
}

func processEnv(cfg *specs.Spec) []string {
	if cfg.Process == nil {
		return nil
	}
	return cfg.Process.Env
}
