// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/desired/yamldoc"
)

// certificates returns a function that says which files of certificates (caFile) the files
// about registries name now. It is not for concurrent use.
func certificates(files ...string) func() ([]string, error) {
	known := make([]registries, len(files))
	for i, f := range files {
		known[i].path = f
	}
	return func() (out []string, err error) {
		for i := range known {
			named, e := known[i].certificates()
			out, err = append(out, named...), errors.Join(err, e)
		}
		return out, err
	}
}

// registries is a file that says how registries are spoken to.
type registries struct {
	path    string
	id      trustedfile.ID
	caFiles []string
}

// certificates are those that the file names. While it can't be read nothing is pulled by it,
// and what it named before is still kept from sandboxes: it will be believed again. What it
// names that was never read is not known, and then nothing may be allowed.
func (r *registries) certificates() ([]string, error) {
	err := r.read()
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, trustedfile.ErrDangling) {
		r.id, r.caFiles = trustedfile.ID{}, nil
		return nil, nil
	}
	if err != nil && r.id == (trustedfile.ID{}) {
		return nil, fmt.Errorf("find the files of certificates that no sandbox may write: %w", err)
	}
	return r.caFiles, nil
}

// settle is how long the file must have been left alone where nobody can tell whether it is
// being written.
const settle = 100 * time.Millisecond

func (r *registries) read() error {
	f, err := trustedfile.Open(r.path)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", r.path, err)
	}
	id := trustedfile.IDOf(&st)
	if st.Mode&unix.S_IFMT != unix.S_IFREG || id == r.id {
		return nil
	}
	b, err := trustedfile.Read(f, &st, settle, yamldoc.MaxFileBytes)
	if err != nil {
		return err
	}
	// Only a part of what the puller reads, which links a client of registries, and says
	// what is wrong with the rest.
	var file struct {
		Registries map[string]struct {
			CAFile string `json:"caFile"`
		} `json:"registries"`
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		return fmt.Errorf("read %s: %w", r.path, err)
	}
	r.id, r.caFiles = id, nil
	for _, host := range file.Registries {
		if filepath.IsAbs(host.CAFile) {
			r.caFiles = append(r.caFiles, filepath.Clean(host.CAFile))
		}
	}
	slices.Sort(r.caFiles)
	return nil
}
