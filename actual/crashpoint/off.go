// SPDX-License-Identifier: Apache-2.0

//go:build !crashpoints

package crashpoint

// Before is the moment before a side effect.
func Before(Point) {}

// After is the moment after it.
func After(Point) {}

// Do makes a side effect.
func Do(_ Point, sideEffect func() error) error { return sideEffect() }

// Env is what a child process must have in its environment: nothing.
func Env() []string { return []string{} }
