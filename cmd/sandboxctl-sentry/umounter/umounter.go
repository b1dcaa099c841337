// SPDX-License-Identifier: Apache-2.0

// Package umounter is the program that unmounts /proc for a sentry. A sentry gives
// up the capability to unmount before its application starts, but needs /proc until
// then, so that another process has to do it. Executing the sentry's own binary for
// that took 7 ms of a start.
package umounter

import "sandboxctl.dev/launcher/onepage"

// ExitUntold is the exit code of a program that was not told to unmount, because
// the process that started it has ended.
const ExitUntold = 255

// text returns where the text of the program begins.
func text() *byte

// Program is an ELF file. It reads one byte from descriptor 0, unmounts /proc, and
// exits with 0, or with the error.
func Program() []byte { return onepage.File(onepage.Text(text()), []byte("/proc\x00")) }
