// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"io"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/setup"
)

// MaxConfig bounds config.json.
const MaxConfig = 1 << 20

// readBundleConfig reads config.json without following a link: the bundle's
// author must not choose which file of the host root reads.
func readBundleConfig(bundle *setup.Source) (*specs.Spec, error) {
	dir := bundle.Path
	d, err := hostfs.OpenSource(bundle)
	if err != nil {
		return nil, fmt.Errorf("open bundle %s: %w", dir, operation.PathPrecondition(err))
	}
	defer d.Close()
	if err := checkInPlace(d, dir); err != nil {
		return nil, err
	}
	f, err := hostfs.OpenBeneath(int(d.Fd()), "config.json", unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open %s/config.json: %w", dir, operation.PathPrecondition(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open %s/config.json: %w", dir, err)
	}
	// It may name any directory of the host, so it is worth as much as a
	// manifest: nobody else may have written it.
	for _, f := range []*os.File{d, f} {
		if err := checkOwned(f); err != nil {
			return nil, operation.Permanentf("read %s/config.json: %w", dir, err)
		}
	}
	if !info.Mode().IsRegular() || info.Size() > MaxConfig {
		return nil, operation.Permanentf("read %s/config.json: expected a regular file of at most %d bytes", dir, MaxConfig)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxConfig))
	if err != nil {
		return nil, fmt.Errorf("read %s/config.json: %w", dir, err)
	}
	cfg, err := setup.DecodeBundleConfig(b)
	if err != nil {
		return nil, operation.Permanentf("read %s/config.json: %w", dir, err)
	}
	return cfg, nil
}

// checkInPlace refuses a bundle that others could put another one in the place
// of between the reading of its config.json and the opening of its root.
func checkInPlace(d *os.File, dir string) error {
	t, err := trustedfile.Open(dir)
	if err != nil {
		return operation.Permanentf("open bundle: %w", err)
	}
	defer t.Close()
	a, aerr := d.Stat()
	b, berr := t.Stat()
	if err := errors.Join(aerr, berr); err != nil {
		return fmt.Errorf("open bundle %s: %w", dir, err)
	}
	if !os.SameFile(a, b) {
		return fmt.Errorf("open bundle %s: it was replaced meanwhile", dir)
	}
	return nil
}

func checkOwned(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), "", &st, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s belongs to user %d with mode %04o; it must be the daemon's user's, and nobody else may write it", f.Name(), st.Uid, st.Mode&0o7777)
	}
	return nil
}
