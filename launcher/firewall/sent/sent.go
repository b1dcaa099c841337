// SPDX-License-Identifier: Apache-2.0

// Package sent compares rules as the kernel shows them with what it was sent. It shows the same
// expressions in the same order, but adds attributes, and leaves out some that are zero.
package sent

import (
	"bytes"
	"encoding/binary"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Is says whether a rule of the kernel, its attribute NFTA_RULE_EXPRESSIONS, is what was sent.
func Is(rule []expr.Any, has []byte) bool {
	list, err := netlink.UnmarshalAttributes(has)
	if err != nil || len(list) != len(rule) {
		return false
	}
	for i, e := range rule {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil || !within(b, list[i].Data, forCompare(b)) {
			return false
		}
	}
	return true
}

// number is the type of an attribute without its flags.
func number(a netlink.Attribute) uint16 { return a.Type &^ (netlink.Nested | netlink.NetByteOrder) }

// forCompare are attributes of an expression that the kernel takes and never shows: the number of
// a set within a transaction.
func forCompare(expression []byte) map[uint16]bool {
	list, err := netlink.UnmarshalAttributes(expression)
	if err != nil {
		return nil
	}
	for _, a := range list {
		if number(a) != unix.NFTA_EXPR_NAME {
			continue
		}
		switch string(bytes.TrimRight(a.Data, "\x00")) {
		case "lookup":
			return map[uint16]bool{unix.NFTA_LOOKUP_SET_ID: true}
		case "dynset":
			return map[uint16]bool{unix.NFTA_DYNSET_SET_ID: true}
		}
	}
	return nil
}

// within says whether all attributes that were sent are there, with the same values. unseen are
// those of the data of an expression that are not shown.
func within(sent, has []byte, unseen map[uint16]bool) bool {
	want, err := netlink.UnmarshalAttributes(sent)
	if err != nil {
		return false
	}
	list, err := netlink.UnmarshalAttributes(has)
	if err != nil {
		return false
	}
	got := map[uint16][]byte{}
	for _, a := range list {
		got[number(a)] = a.Data
	}
	for _, a := range want {
		data, there := got[number(a)]
		switch nested := a.Type&netlink.Nested != 0; {
		case !there && len(bytes.Trim(a.Data, "\x00")) == 0:
		case !there:
			return false
		case nested && !nestedIn(a.Data, data, unseen):
			return false
		case !nested && !same(a.Data, data):
			return false
		}
	}
	return true
}

// same compares a value. Texts may be sent without their last byte, which is 0; of a number of which
// the kernel takes one byte it shows that; and of registers of 4 bytes that are the first of one of
// 16, the number of that.
func same(sent, has []byte) bool {
	if bytes.Equal(sent, has) || bytes.Equal(append(bytes.Clone(sent), 0), has) {
		return true
	}
	if len(sent) != 4 || len(has) != 4 {
		return len(sent) == 4 && len(has) == 1 && sent[0] == has[0]
	}
	r := binary.BigEndian.Uint32(sent)
	return r >= unix.NFT_REG32_00 && r <= unix.NFT_REG32_15 && (r-unix.NFT_REG32_00)%4 == 0 &&
		binary.BigEndian.Uint32(has) == unix.NFT_REG_1+(r-unix.NFT_REG32_00)/4
}

// nestedIn is within of attributes in one, without those that are not shown.
func nestedIn(sent, has []byte, unseen map[uint16]bool) bool {
	if len(unseen) == 0 {
		return within(sent, has, nil)
	}
	list, err := netlink.UnmarshalAttributes(sent)
	if err != nil {
		return false
	}
	var shown []netlink.Attribute
	for _, a := range list {
		if !unseen[number(a)] {
			shown = append(shown, a)
		}
	}
	b, err := netlink.MarshalAttributes(shown)
	return err == nil && within(b, has, nil)
}
