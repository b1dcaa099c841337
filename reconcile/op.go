// SPDX-License-Identifier: Apache-2.0

package reconcile

// Op is an operation on one sandbox.
type Op int

// The operations.
const (
	OpCreate Op = iota + 1
	OpResume
	OpDestroy
	OpForget
	OpRefresh
	OpRepair
)

// MarshalText and UnmarshalText are for Progress.
func (o Op) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads the word of an operation; one that is not known is none.
func (o *Op) UnmarshalText(b []byte) error {
	for *o = OpRepair; *o > 0 && o.String() != string(b); *o-- {
		continue
	}
	return nil
}

// String gives the word of an operation.
func (o Op) String() string {
	switch o {
	case OpCreate:
		return "create"
	case OpResume:
		return "resume"
	case OpDestroy:
		return "destroy"
	case OpForget:
		return "forget"
	case OpRefresh:
		return "refresh"
	case OpRepair:
		return "repair"
	}
	return "none"
}
