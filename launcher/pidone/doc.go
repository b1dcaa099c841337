// SPDX-License-Identifier: Apache-2.0

// Package pidone is the init process of a sandbox: a program of one page that
// starts the application as its child, passes signals on to it, reaps every
// orphan, and ends as the application did.
//
// It is written in Go's assembler and put into an ELF file in memory: a program
// with a runtime would cost each sandbox several threads and megabytes. It
// allocates nothing, opens nothing and handles no signal, and so has no state to
// get wrong. program_amd64.s lists what it does, step by step.
package pidone
