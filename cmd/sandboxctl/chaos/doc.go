// SPDX-License-Identifier: Apache-2.0

// Package chaos holds the tests that hurt the real daemon on real sandboxes:
// processes killed and stopped at random, system calls that fail, disks and
// tables that are full. It has no code of its own; it is a package so that these
// tests run beside the others and by themselves (`make soak`, `make faults`).
package chaos
