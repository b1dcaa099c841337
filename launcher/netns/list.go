// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"time"

	"github.com/vishvananda/netlink"
)

// listTries is how often a list is read that changes meanwhile. Before each further try there is
// a pause, a millisecond longer than the one before: without them a busy host has changed all the
// tries. Together they take a fifth of a second.
const listTries = 20

// List reads a list of the kernel by netlink. When something appears or goes between two parts
// of it, the kernel says that it may not be whole, and it is read again: other starts, docker
// and podman make and remove interfaces all the time, and no start may fail for that.
func List[T any](read func() ([]T, error)) (list []T, err error) {
	for try := range listTries {
		<-time.After(time.Duration(try) * time.Millisecond)
		if list, err = read(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	return nil, err
}
