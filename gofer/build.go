// SPDX-License-Identifier: Apache-2.0

package gofer

import "errors"

// CanRun says why this build of a program can't be used, nil if it can. A gofer
// gives up its privileges on all of its threads at once, which Go does only where
// no thread is C's. A program that was linked with C's libraries does not start
// in the root of a sandbox either, where sandboxctl runs startContainer hooks.
func CanRun() error {
	if withCgo {
		return errors.New("this program was built with cgo: a gofer can't give up its privileges then, and no hook can start in a sandbox; build it with CGO_ENABLED=0 (make build)")
	}
	return nil
}
