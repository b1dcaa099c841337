// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package pidone

// instructions returns nil: there is no init process for this processor.
func instructions() []byte { return nil }
