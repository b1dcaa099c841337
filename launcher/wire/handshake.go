// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
)

// Handshake is the single line that a program of the launcher's prints for
// `version`: which program it is, which version of its protocol it speaks, and
// the version of gVisor in it.
func Handshake(program string, protocol int, gvisor string) string {
	return fmt.Sprintf("%s protocol=%d gvisor=%s", program, protocol, gvisor)
}

// ParseHandshake takes such a line apart. ok is false if it is none of the program
// named.
func ParseHandshake(program, line string) (protocol int, gvisor string, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), program+" protocol=")
	number, gvisor, ok2 := strings.Cut(rest, " gvisor=")
	protocol, err := strconv.Atoi(number)
	if !ok || !ok2 || err != nil || gvisor == "" || strings.ContainsAny(gvisor, " \t\n") {
		return 0, "", false
	}
	return protocol, gvisor, true
}

// GVisorVersion is the version of the gVisor module in the program that calls it.
func GVisorVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "gvisor.dev/gvisor" {
				return m.Version
			}
		}
	}
	return "unknown"
}
