// SPDX-License-Identifier: Apache-2.0

package launcher

import "errors"

// ErrStuck says that a process outlived SIGKILL for longer than the deadline.
var ErrStuck = errors.New("process does not die")
