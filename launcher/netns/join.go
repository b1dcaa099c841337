// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"

	"sandboxctl.dev/actual/operation"
)

// Join opens a namespace for a process to be started in. A path that leads to the
// host's own namespace is the host's network by another name.
func Join(path string) (*Namespace, error) {
	ns, err := Open(path)
	if errors.Is(err, ErrNotNamespace) {
		return nil, operation.Permanentf("%w", err)
	}
	if err != nil {
		return nil, err
	}
	own, err := ns.IsOwn()
	if err == nil && own {
		err = operation.Permanentf("join network namespace %s: it is the host's own; ask for the host's network instead", path)
	}
	if err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}
