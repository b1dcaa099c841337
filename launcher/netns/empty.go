// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// empty is the namespace of Empty, nil before the first call. The kernel keeps it as
// long as this process, or one that was started there, lives.
var empty struct {
	sync.Mutex
	n *Namespace
}

// Empty is a namespace of this process in which no interface is up, the same one at
// each call. It is not to be closed. It belongs to the user namespace of this process:
// what is started there in a user namespace of its own can't change it.
func Empty() (_ *Namespace, err error) {
	empty.Lock()
	defer empty.Unlock()
	if empty.n == nil {
		empty.n, err = New()
	}
	return empty.n, err
}

// New makes a namespace. No interface of it is up.
func New() (*Namespace, error) {
	var f *os.File
	err := elsewhere(
		func() error { return unix.Unshare(unix.CLONE_NEWNET) },
		func() (err error) {
			f, err = os.Open(current)
			return err
		})
	n := &Namespace{f}
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return n, nil
}
