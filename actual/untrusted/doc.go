// SPDX-License-Identifier: Apache-2.0

// Package untrusted reads and removes what a process may have made that was
// taken over: the log directory of a gofer holds fifos, devices, links, sparse
// files, trees without end. Nothing here blocks, follows a link, opens anything
// but regular files and directories, or does more than it was allowed to. Text of
// such a process is made fit for a terminal (Line).
package untrusted
