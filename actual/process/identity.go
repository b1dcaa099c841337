// SPDX-License-Identifier: Apache-2.0

package process

// Identity names one process for ever, also after its pid was reused.
type Identity struct {
	// PID is in the pid namespace of the daemon; never 0 or 1.
	PID int `json:"pid"`
	// Inode is the pidfs inode of its pidfd (Linux 6.9 and later, else 0):
	// unique for the boot.
	Inode uint64 `json:"inode,omitempty"`
	// StartTime is field 22 of /proc/PID/stat, in clock ticks since boot: the
	// fallback where Inode is 0 (10 ms ticks: not unique on its own).
	StartTime uint64 `json:"startTime"`
	// BootID is /proc/sys/kernel/random/boot_id.
	BootID string `json:"bootID"`
	// PIDNamespace is the inode of the pid namespace that PID is a number in: what
	// another one has under that number says nothing. 0 in records of version 2.
	PIDNamespace uint64 `json:"pidNamespace,omitempty"`
}

// Bare is the identity without its pid namespace, to compare one of an older
// record with.
func (id Identity) Bare() Identity {
	id.PIDNamespace = 0
	return id
}

// Liveness is what is known of a process. The zero value is Unknown, which is
// neither dead nor alive: nothing destructive may follow from it.
type Liveness int

// The values of Liveness.
const (
	Unknown Liveness = iota
	Alive
	Dead // gone, or a zombie
	None // the record names no such process
)
