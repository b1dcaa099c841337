// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/seccomp"

	"sandboxctl.dev/cmd/sandboxctl-sentry/filters"
	"sandboxctl.dev/launcher/wire"
)

// confineDiskFiles takes from every thread, for good, what could make the files for the
// disk longer than their limits. gVisor holds a guest to their sizes; this is for a sentry
// that was taken over. As confineExitRecord, it comes before gVisor's own filter.
func confineDiskFiles(files []wire.DiskFile) error {
	if len(files) == 0 {
		return nil
	}
	program, _, err := filters.DiskFileRules(files).Build()
	if err != nil {
		return fmt.Errorf("build filter: %w", err)
	}
	if err := seccomp.SetFilter(program); err != nil {
		return fmt.Errorf("install filter: %w", err)
	}
	return nil
}
