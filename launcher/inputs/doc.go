// SPDX-License-Identifier: Apache-2.0

// Package inputs is about what a manifest refers to and does not hold: files of the
// host with environment variables. It looks at them for the planner, which starts
// nothing before they are there and again when they change, and reads them at a start.
//
// What is read is given to the sentry and to nobody else. A record says which file was
// read, and nothing of what is in it.
package inputs
