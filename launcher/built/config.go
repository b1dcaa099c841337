// SPDX-License-Identifier: Apache-2.0

package built

import (
	"encoding/json"
	"fmt"
	"io"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/resolve"
)

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
