// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// attributeID is CTA_ID of linux/netfilter/nfnetlink_conntrack.h.
const attributeID = 12

// IDs are those of all connections that the kernel keeps in the namespace of the calling
// thread, as nftables has them.
func IDs() (map[[4]byte]bool, error) {
	dumps.Lock()
	defer dumps.Unlock()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	defer c.Close()
	_ = c.SetReadBuffer(16 << 20) // of one that is smaller some are found by the next look
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	all, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | get, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	out := make(map[[4]byte]bool, len(all))
	for _, m := range all {
		if len(m.Data) < header {
			continue
		}
		each(m.Data[header:], func(kind uint16, id []byte) {
			if kind == attributeID && len(id) == 4 {
				out[[4]byte(id)] = true
			}
		})
	}
	return out, nil
}
