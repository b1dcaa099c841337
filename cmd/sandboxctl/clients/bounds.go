// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"sync"

	"sandboxctl.dev/client/protocol"
	"sandboxctl.dev/desired/hostpolicy"
)

// How many connections there may be. Each holds some descriptors and, while its request is read,
// up to protocol.MaxRequest bytes.
const (
	maxConnections = 128
	// forRoot are kept free of others.
	forRoot = 16
)

// bounds counts connections. They count from the moment in which they are accepted until what was
// made for them is gone.
type bounds struct {
	mu    sync.Mutex
	all   int
	users map[uint32]int
	// perUser is how many a user may have who is not root.
	perUser int
}

func newBounds() *bounds {
	return &bounds{users: map[uint32]int{}, perUser: hostpolicy.DefaultClientRuns}
}

// setPerUser changes the bound of users. Those who have more keep what they have.
func (b *bounds) setPerUser(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.perUser = n
}

// take counts one more connection, and returns how to give it back.
func (b *bounds) take(uid uint32) (release func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.all >= maxConnections, uid != 0 && b.all >= maxConnections-forRoot:
		return nil, protocol.Failf(protocol.KindBusy, "the daemon has %d requests under way; try again later", b.all)
	case uid != 0 && b.users[uid] >= b.perUser:
		return nil, protocol.Failf(protocol.KindBusy, "user %d has %d requests under way, as many as clients.maxRuns of the host policy allows; try again later", uid, b.users[uid])
	}
	b.all++
	b.users[uid]++
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.all--
		if b.users[uid]--; b.users[uid] == 0 {
			delete(b.users, uid)
		}
	}), nil
}
