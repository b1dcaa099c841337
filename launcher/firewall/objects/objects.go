// SPDX-License-Identifier: Apache-2.0

// Package objects has what a table of nftables has beside chains and sets: it reads counters,
// and reads and makes timeouts of connections.
package objects

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Read gives the counters of a table in the calling thread's namespace, and its timeouts, with whether each is what its name says.
// The library can't read a table that has both.
func Read(table string) (map[string]*nftables.CounterObj, map[string]bool, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("firewall: netlink: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, nil, fmt.Errorf("firewall: netlink: %w", err)
	}
	of, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_OBJ_TABLE, Data: append([]byte(table), 0)}})
	if err != nil {
		return nil, nil, fmt.Errorf("firewall: %w", err)
	}
	reply, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETOBJ, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, of...),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("firewall: read the objects of table %s: %w", table, err)
	}
	counters, timeouts := map[string]*nftables.CounterObj{}, map[string]bool{}
	for _, m := range reply {
		if len(m.Data) < 4 {
			continue
		}
		is := Attributes(m.Data[4:])
		name, kind := text(is[unix.NFTA_OBJ_NAME]), is[unix.NFTA_OBJ_TYPE]
		if text(is[unix.NFTA_OBJ_TABLE]) != table || len(kind) != 4 {
			continue
		}
		switch binary.BigEndian.Uint32(kind) {
		case unix.NFT_OBJECT_COUNTER:
			values := Attributes(is[unix.NFTA_OBJ_DATA])
			counters[name] = &nftables.CounterObj{Name: name, Bytes: number(values[unix.NFTA_COUNTER_BYTES]), Packets: number(values[unix.NFTA_COUNTER_PACKETS])}
		case unix.NFT_OBJECT_CT_TIMEOUT:
			timeouts[name] = right(name, is[unix.NFTA_OBJ_DATA])
		}
	}
	return counters, timeouts, nil
}

// Attributes are those of a list, or none if it is not valid.
func Attributes(b []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return out
	}
	for _, a := range list {
		out[a.Type&^(netlink.Nested|netlink.NetByteOrder)] = a.Data
	}
	return out
}

func text(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// number is one of 64 bits.
func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
