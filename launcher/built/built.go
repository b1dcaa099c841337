// SPDX-License-Identifier: Apache-2.0

package built

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/resolve"
	"sandboxctl.dev/launcher/setup"
)

// Record writes down what is being built. The gates are closed.
func Record(store *actual.Store, rec *actual.Record, st *setup.Setup) error {
	b, err := setup.Encode(rec, st)
	if err == nil {
		err = store.PutSetup(rec.Name, b)
	}
	if err != nil {
		return fmt.Errorf("record set-up: %w", err)
	}
	return nil
}

// Of is what was built for a record.
func Of(store *actual.Store, rec *actual.Record) (*setup.Setup, error) {
	if !rec.SetupFile {
		return earlierSetup(store, rec)
	}
	b, err := store.Setup(rec.Name)
	if err == nil {
		var st *setup.Setup
		if st, err = setup.Decode(rec, b); err == nil {
			return st, nil
		}
	}
	return nil, untold(rec, err)
}

func untold(rec *actual.Record, err error) error {
	return fmt.Errorf("what was built for %s can't be told: %w; it runs on, and a restart writes the file anew", rec.Name, err)
}

// earlierSetup is what an earlier version built, which did not write it down. It is
// derived from what is on record, and from nothing that may have changed since: that
// is enough but for the bundle of a manifest.
func earlierSetup(store *actual.Store, rec *actual.Record) (*setup.Setup, error) {
	if rec.App().OCI != nil {
		cfg, err := Config(store, rec.Name)
		if err != nil {
			return nil, err
		}
		return resolve.FromContainer(cfg, rec.App().OCI.Bundle)
	}
	e, err := desired.FromCanonical(rec.Spec, rec.SourceFile)
	if err != nil {
		return nil, err
	}
	if bundle := e.Sandbox.Spec.Root.Bundle; bundle != "" {
		return nil, fmt.Errorf("what was built for %s can't be told: an earlier version of sandboxctl started it and wrote nothing down, and %s/config.json may have changed since; it runs on, and a restart writes the file", rec.Name, bundle)
	}
	st, err := resolve.FromManifest(e.Sandbox, nil, nil)
	if err != nil {
		return nil, err
	}
	st.App().Init = rec.App().Init
	return st, nil
}

// Check says why exec and checkpoint don't work for a record of something that
// runs, nil if they do.
func Check(store *actual.Store, rec *actual.Record) error {
	if rec.Phase != actual.PhaseRunning && rec.Phase != actual.PhaseCreated {
		return nil
	}
	_, err := Of(store, rec)
	if err == nil {
		return nil
	}
	// It may have ended meanwhile, and its file with it.
	now, quarantined, gerr := store.Get(rec.Name)
	if gerr != nil || quarantined != nil || now == nil || now.Attempt != rec.Attempt || now.Phase != rec.Phase {
		return errors.Join(gerr)
	}
	return err
}

// containerConfig is the copy of config.json in a container's directory: what
// happens to the bundle after create changes nothing.
const containerConfig = "config.json"

// PutConfig writes the copy of a container's config.json.
func PutConfig(store *actual.Store, id string, cfg *specs.Spec) error {
	b, err := json.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("encode config.json: %w", err)
	}
	dir, err := store.Dir(id)
	if err != nil {
		return err
	}
	defer dir.Close()
	return atomicfile.Write(dir, containerConfig, b, 0o600)
}

// Config is the config.json that a container was created from.
func Config(store *actual.Store, id string) (*specs.Spec, error) {
	dir, err := store.Dir(id)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := hostfs.OpenBeneath(int(dir.Fd()), containerConfig, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open configuration of %s: %w", id, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4*resolve.MaxConfig))
	if err != nil {
		return nil, fmt.Errorf("read configuration of %s: %w", id, err)
	}
	var cfg specs.Spec
	if err := json.Unmarshal(b, &cfg); err != nil {
		return nil, fmt.Errorf("decode configuration of %s: %w", id, err)
	}
	return &cfg, nil
}
