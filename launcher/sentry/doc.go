// SPDX-License-Identifier: Apache-2.0

// Package sentry talks to the sentry of a running sandbox over its control socket,
// and says in users' words what it answers.
//
// A sentry may have been taken over by what runs in it. The connection goes to the
// process on record and to nobody else, every call has a deadline, answers have a
// limited size, and their text is made fit for a terminal.
package sentry
