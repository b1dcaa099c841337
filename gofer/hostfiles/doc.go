// SPDX-License-Identifier: Apache-2.0

// Package hostfiles serves files of the host over lisafs. It is gVisor's
// runsc/fsgofer, Copyright 2021 The gVisor Authors, Apache License 2.0, with these
// changes:
//
//   - Nothing but directories and regular files is ever opened. fsgofer opens what
//     it comes by for reading, a FIFO too: a writer of the host is let go on, and
//     what it writes is lost.
//   - What the host's sockets, FIFOs and devices need to be used is left out.
//   - A connection may hide which device a device node is of (nodev).
package hostfiles
