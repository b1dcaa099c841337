// SPDX-License-Identifier: Apache-2.0

package desired

import "time"

// Policy judges what manifests may ask for. Package hostpolicy has the one of a host.
type Policy interface {
	// Check returns everything that a defaulted manifest asks for and the policy
	// does not allow.
	Check(*Sandbox) []FieldError
	// CheckFiles returns which files of the host may not be read for a document.
	CheckFiles([]FileRef) []FieldError
	// CheckVolume returns why there may be no named volumes, at a field.
	CheckVolume(field string) []FieldError
	// CheckNetwork returns why there may be no networks of sandboxes, at a field.
	CheckNetwork(field string) []FieldError
	// Source says where the policy is written down.
	Source() string
	// Digest changes whenever the policy does.
	Digest() string
	// Bounds are what the policy says about all sandboxes together.
	Bounds() Bounds
}

// Bounds are what a host policy says about all sandboxes together. The zero value
// bounds nothing.
type Bounds struct {
	// MaxSandboxes is how many there may be.
	MaxSandboxes int
	// StartsPerSecond bounds the starts that nobody asked for.
	StartsPerSecond int
	// RestartFloor is the least delay after a failure.
	RestartFloor time.Duration
	// DefaultDiskSize is the size of what is on the disk and has none of its own.
	DefaultDiskSize int64
}
