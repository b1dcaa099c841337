// SPDX-License-Identifier: Apache-2.0

// Package appstart is about the first program of a sandbox, where that is not the
// application: the init process, or the one that runs the startContainer hooks. It
// gives the program to the sentry, and waits for what it reports of the start.
package appstart
