// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"io/fs"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/snapshot"
)

// checkSnapshots looks for snapshots that nothing can begin from, without reading all of them.
func (d doctor) checkSnapshots() []finding {
	const name = "snapshots"
	store, err := actual.OpenStoreReadOnly(d.State)
	if err != nil {
		return nil // told elsewhere
	}
	defer store.Close()
	s, err := snapshot.Look(store.RootDir())
	if errors.Is(err, fs.ErrNotExist) {
		return []finding{{name, levelOK, "none"}}
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
	good, sum := 0, int64(0)
	for _, e := range all {
		sum += e.Bytes
		if e.Problem == "" {
			good++
			continue
		}
		out = append(out, finding{"snapshot " + e.Name, levelError, e.Problem + "; sandboxes that name it are started afresh; `sandboxctl snapshot rm` removes it"})
	}
	return append(out, finding{name, levelOK, fmt.Sprintf("%d, which take %s; `sandboxctl snapshot verify` reads them", good, show.Bytes(sum))})
}
