// SPDX-License-Identifier: Apache-2.0

// Package hostfiles serves files of the host over lisafs, the protocol between
// gVisor's sentry and its file server. The sentry is the adversary: whatever it
// asks for, it reaches nothing but the tree of its connection.
//
//   - A file is first located: opened with O_PATH and O_NOFOLLOW, one name below
//     a directory that is open already. That has no effect on the file, and links
//     lead nowhere.
//   - What it is gets looked at on that descriptor, and only a directory or a
//     regular file is opened, through the descriptor. No file can be put in its
//     place in between. FIFOs, sockets, devices and links are never opened: a
//     reader would let the host's writer of a FIFO go on, and lose what it writes.
//   - Block devices are not even shown. A connection may hide which device a
//     character device is of (nodev).
//   - The seccomp filter of gVisor's own file server is in force. A system call
//     that it does not allow ends the process; comments say where it decides how
//     something is done.
//
// lisafs locks for the methods of this package, refuses changes of read-only
// connections and names with a slash; see its ControlFDImpl.
package hostfiles
