// SPDX-License-Identifier: Apache-2.0

package puller

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/desired/yamldoc"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/source"
)

// registriesSettle is how long the file must have been left alone where nobody can tell
// whether it is being written.
const registriesSettle = 100 * time.Millisecond

// LoadRegistries reads such a file. Only root may be able to write it: it says which hosts
// are trusted without TLS.
func LoadRegistries(path string) (source.Hosts, error) {
	hosts, err := loadRegistries(path)
	if err != nil {
		return nil, fmt.Errorf("read registries %s: %w", path, err)
	}
	return hosts, nil
}

func loadRegistries(path string) (source.Hosts, error) {
	f, err := trustedfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("expected a regular file")
	}
	b, err := trustedfile.Read(f, &st, registriesSettle, yamldoc.MaxFileBytes)
	if err != nil {
		return nil, err
	}
	// The YAML library passes over a second document without a word.
	if chunks, bad := yamldoc.Chunks(path, b); bad != nil {
		return nil, errors.New(bad.Error())
	} else if len(chunks) > 1 {
		return nil, errors.New("expected one document")
	}
	var file struct {
		Registries source.Hosts `json:"registries"`
	}
	if err := yaml.UnmarshalStrict(b, &file); err != nil {
		return nil, err
	}
	return file.Registries, file.Registries.Check()
}

// registries is how registries are spoken to now: the file may have changed.
func (s *Puller) registries() (source.Hosts, error) {
	if s.options.Registries != nil {
		return s.options.Registries, nil
	}
	path := s.options.RegistriesFile
	if path != "" {
		return LoadRegistries(path)
	}
	hosts, err := LoadRegistries(image.RegistriesPath)
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, trustedfile.ErrDangling) {
		return nil, nil
	}
	return hosts, err
}
