// SPDX-License-Identifier: Apache-2.0

package warm

import (
	"context"
	"fmt"
	"time"

	"sandboxctl.dev/launcher/hostmem"
)

const (
	// maxKept is more than any policy wants.
	maxKept = 1 << 20
	// roomToMake and roomToKeep are how much memory the host must be able to give for each
	// pair before one more is made, and so that it stays. A pair takes 6 MiB: it is at most a
	// fortieth of what is free. The gap between both keeps one from coming and going.
	roomToMake = 256 << 20
	roomToKeep = 128 << 20
	// unwatched is how often the memory is looked at where the kernel does not tell of
	// pressure.
	unwatched = 30 * time.Second
)

// Room is how many pairs the memory of the host has room for: up to how many are made, and how
// many stay.
func Room(available uint64) (most, keep int) {
	return int(available / roomToMake), int(available / roomToKeep)
}

// room is up to how many pairs are made, how many stay, and why no more.
func (p *Pool) room() (most, keep int, lack string) {
	free, err := p.available()
	p.unreadable = p.complain(p.unreadable, err)
	if err != nil {
		return 0, 0, err.Error()
	}
	most, keep = Room(free)
	return most, keep, fmt.Sprintf("the host has %d MiB of free memory, and one pair waits for each %d", free>>20, roomToMake>>20)
}

// watchMemory has the memory looked at as soon as processes wait for some, until the context
// ends, and now and then where the kernel does not tell. That some wait is no reason to leave by
// itself: they may have come to a limit of their own, as those of a sandbox do when its guest
// wants it.
func (p *Pool) watchMemory(ctx context.Context) {
	err := hostmem.Watch(ctx, p.Wake)
	if err == nil {
		return
	}
	p.opts.Log.Info("the kernel does not tell when memory runs short; it is looked at every 30 s", "err", err)
	tick := time.NewTicker(unwatched)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.Wake()
		}
	}
}

// complain logs an error that keeps processes from waiting, unless it was the one said last. It
// returns what was said last then.
func (p *Pool) complain(said string, err error) string {
	if err == nil {
		return ""
	}
	if err.Error() != said {
		p.opts.Log.Warn("no process waits for a sandbox; starts take longer", "err", err)
	}
	return err.Error()
}
