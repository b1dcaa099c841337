// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	_ "unsafe" // for linkname

	"gvisor.dev/gvisor/pkg/seccomp"
	_ "gvisor.dev/gvisor/runsc/specutils/seccomp" // what is linked to
)

// These are the actions of gVisor's converter of linux.seccomp, which knows one
// error for all rules. It takes them from here when it builds the filter of a
// process. That they exist is what the linker checks, that they have the effect
// TestErrnos.
//
//go:linkname errnoAction gvisor.dev/gvisor/runsc/specutils/seccomp.errnoAction
var errnoAction seccomp.Action

//go:linkname traceAction gvisor.dev/gvisor/runsc/specutils/seccomp.traceAction
var traceAction seccomp.Action

//go:linkname trapAction gvisor.dev/gvisor/runsc/specutils/seccomp.trapAction
var trapAction seccomp.Action

// setErrnos has the actions ERRNO, TRACE and TRAP, as many as are given, answer
// with errors: wire.FlagErrnos.
func setErrnos(list string) error {
	if list == "" {
		return nil
	}
	slots := []*seccomp.Action{&errnoAction, &traceAction, &trapAction}
	for i, text := range strings.Split(list, ",") {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || i >= len(slots) || n >= math.MaxInt16 {
			return fmt.Errorf("expected at most %d errors, got %q", len(slots), list)
		}
		*slots[i] = seccomp.ReturnError.Code(uint16(n))
	}
	return nil
}
