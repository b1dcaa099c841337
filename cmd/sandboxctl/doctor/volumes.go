// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"io/fs"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/volume"
)

// checkVolumes looks for named volumes that no sandbox can start with.
func (d doctor) checkVolumes() []finding {
	const name = "volumes"
	store, err := actual.OpenStoreReadOnly(d.State)
	if err != nil {
		return nil // told elsewhere
	}
	defer store.Close()
	s, err := volume.Look(store.RootDir())
	if errors.Is(err, fs.ErrNotExist) {
		return []finding{{name, levelOK, "none" + sizes(store)}}
	}
	if err != nil {
		return []finding{{name, levelError, err.Error()}}
	}
	defer s.Close()
	all, err := s.List()
	if err != nil {
		return []finding{{name, levelError, err.Error()}}
	}
	var out []finding
	good := 0
	for _, e := range all {
		if e.Problem == "" {
			good++
			continue
		}
		out = append(out, finding{"volume " + e.Name, levelError, e.Problem})
	}
	return append(out, finding{name, levelOK, fmt.Sprintf("%d named volumes%s", good, sizes(store))})
}

// sizes says whether volumes can have sizes here.
func sizes(store *actual.Store) string {
	if err := volume.CanLimit(store.RootDir()); err != nil {
		return "; " + err.Error()
	}
	return "; they can have sizes"
}
