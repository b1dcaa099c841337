// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"strings"

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/gofer/sandboxlog"
)

// logLine is how gVisor logs what happens: level, month and day.
var logLine = pattern(`^[DIW][01][0-9][0-3][0-9] `)

// LastLogLine is the last line of a log file that is worth quoting, without time
// and stream if it has them. What is logged in passing is not: the reason why a
// process ends is written without a level.
func LastLogLine(tail string) string {
	var last string
	for line := range strings.SplitSeq(tail, "\n") {
		if e, err := sandboxlog.Parse([]byte(line)); err == nil {
			line = string(e.Text)
		}
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return untrusted.Line(line, 300) // and not the end of its stack trace
		}
		if line != "" && !logLine().MatchString(line) {
			last = line
		}
	}
	return untrusted.Line(last, 300)
}
