// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"errors"
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired/scalar"
)

// MemoryFault is the error of a start of which the kernel has killed processes because
// memory ran out, nil if it has not. A start that was cancelled has ended for that reason,
// whatever became of its processes meanwhile: it must not count as one that failed.
func (st *Setup) MemoryFault(ctx context.Context, limit int64, killed bool) error {
	if cause := context.Cause(ctx); !killed || cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		return nil
	}
	return st.OutOfMemory(limit)
}

// OutOfMemory is the error of a start that the kernel has ended because memory ran out: at
// this limit, or because that of the host ran out if it is 0.
func (st *Setup) OutOfMemory(limit int64) error {
	if limit == 0 {
		return fmt.Errorf("%s: the host had no memory left for the start", actual.ReasonOOMKilled)
	}
	field := "resources.memory"
	if st.Policy == nil {
		field = "linux.resources.memory.limit"
	}
	files := 0
	for i := range st.App().Volumes {
		for _, f := range st.App().Volumes[i].Files {
			files += len(f.Data)
		}
	}
	taken := ""
	if files > 0 {
		taken = fmt.Sprintf("; the files of its config and secret volumes take %.1fMi", float64(files)/(1<<20))
	}
	return fmt.Errorf("%s: its memory limit of %s is too small to start it%s; raise %s", actual.ReasonOOMKilled, scalar.Bytes(limit), taken, field)
}
