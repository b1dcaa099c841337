// SPDX-License-Identifier: Apache-2.0

// Package trustedfile opens the files that decide what runs as root on a host:
// manifests, their directory, the host policy. It refuses what anybody but root
// (and the user of this program) could change, as sshd does with the files that
// say who may log in, and it tells whether a file is being written right now.
package trustedfile
