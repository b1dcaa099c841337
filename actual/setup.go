// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
)

// SetupFile is the file in a sandbox's directory that says what was built for it.
// It is written once, before the gates open, and removed when the sandbox has ended.
// Its contents are the launcher's.
const SetupFile = "setup.json"

// maxSetup bounds it: a config.json of 1 MiB, escaped.
const maxSetup = 8 << 20

// errNoSetup says that the file is missing.
var errNoSetup = errors.New(SetupFile + " is missing")

// PutSetup writes down what is built for a sandbox. It survives the end of this
// program. It need not survive a power cut, which ends the sandbox too: what is left of
// the file then is of use to nobody, and is refused if it is not whole.
func (s *Store) PutSetup(name string, body []byte) error {
	b := seal(setupKind, body)
	if len(b) > maxSetup {
		return fmt.Errorf("write %s of %s: %d bytes, at most %d are allowed", SetupFile, name, len(b), maxSetup)
	}
	dir, err := s.dir(name)
	if err != nil {
		return fmt.Errorf("write %s of %s: %w", SetupFile, name, err)
	}
	defer dir.Close()
	if err := crashpoint.Do(crashpoint.SetupPut, func() error { return atomicfile.In{Dir: dir}.Publish(SetupFile, b, 0o600) }); err != nil {
		return fmt.Errorf("write %s of %s: %w", SetupFile, name, err)
	}
	return nil
}

// Setup returns what PutSetup wrote, byte for byte, or an error: errNoSetup, or what
// is wrong with the file.
func (s *Store) Setup(name string) ([]byte, error) {
	dir, err := s.dir(name)
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", SetupFile, name, err)
	}
	defer dir.Close()
	b, err := readRegular(dir, SetupFile, maxSetup)
	if errors.Is(err, unix.ENOENT) {
		err = errNoSetup
	}
	if err == nil {
		b, err = unseal(setupKind, b)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", SetupFile, name, err)
	}
	return b, nil
}

// DropSetup removes it. That it is not there is no error. It is on disk with the
// next write of the record.
func (s *Store) DropSetup(name string) error {
	dir, err := s.dir(name)
	if err != nil {
		return fmt.Errorf("remove %s of %s: %w", SetupFile, name, err)
	}
	defer dir.Close()
	err = crashpoint.Do(crashpoint.SetupRemove, func() error { return dir.Unlink(SetupFile) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s of %s: %w", SetupFile, name, err)
	}
	return nil
}
