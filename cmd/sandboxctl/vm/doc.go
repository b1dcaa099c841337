// SPDX-License-Identifier: Apache-2.0

// Package vm tests sandboxctl on the host that most users have: Debian 12 with
// its own kernel 6.1 (pidfds have no inode there), systemd as pid 1, cgroup v2
// only, and power that is cut. The host is a virtual machine that qemu emulates,
// without KVM. There are only tests here; `make vm` runs them.
package vm
