// SPDX-License-Identifier: Apache-2.0

// Package sandboxlog is the format and the files of a sandbox's output: the
// gofer writes them, `sandboxctl logs` reads them.
//
// A line is what Kubernetes' CRI made common: time (RFC 3339 with nanoseconds,
// UTC), stream, F for a full line or P for a part of one, text. A file is
// rotated when it reaches its cap: NAME becomes NAME.1, and the NAME.1 before
// it is gone. Output that cannot be written (a full disk) is counted and
// dropped rather than held: a sandbox never blocks on its own log.
package sandboxlog
