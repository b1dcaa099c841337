// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/bridge"
	"sandboxctl.dev/launcher/firewall"
)

// traffic is what passed between a sandbox and its networks, as the kernel of the host
// counts it by the rules of its links: what the sentry says of it is for the sandbox to decide.
type traffic struct {
	ReceivedBytes   uint64 `json:"receivedBytes"`
	ReceivedPackets uint64 `json:"receivedPackets"`
	SentBytes       uint64 `json:"sentBytes"`
	SentPackets     uint64 `json:"sentPackets"`
	// What rules did not let pass: of what it sent, and of what was for it.
	RefusedEgressPackets  uint64 `json:"refusedEgressPackets"`
	RefusedIngressPackets uint64 `json:"refusedIngressPackets"`
}

// counters finds the traffic of sandboxes. The table is read once, when the first one on a
// network is asked for.
type counters struct {
	table string
	read  bool
	all   map[string]firewall.Counts
	err   error
}

// of is the traffic of a sandbox, nil if no network of ours has it, or with an error.
func (c *counters) of(rec *actual.Record) (*traffic, error) {
	if len(rec.Attachments) == 0 {
		return nil, nil
	}
	if !c.read {
		c.read = true
		var t *firewall.Table
		if t, c.err = firewall.Open(nil, c.table); c.err == nil {
			c.all, c.err = t.Counters()
		}
	}
	n, known := c.all[rec.Name]
	switch {
	case c.err != nil:
		return nil, fmt.Errorf("network of %s: %w", rec.Name, c.err)
	case !known:
		return nil, fmt.Errorf("network of %s: the table %s of nftables, which counts, has nothing of it in this network namespace", rec.Name, c.table)
	}
	return &traffic{
		ReceivedBytes: n.ReceivedBytes, ReceivedPackets: n.ReceivedPackets, SentBytes: n.SentBytes, SentPackets: n.SentPackets,
		RefusedEgressPackets: n.DeniedPackets, RefusedIngressPackets: n.BarredPackets,
	}, nil
}

func countersOf(store *actual.Store) *counters { return &counters{table: bridge.Table(store.Marker())} }

// columns are those of a table; one without traffic has dashes.
func (t *traffic) columns() []string {
	if t == nil {
		return []string{"-", "-", "-", "-", "-"}
	}
	count := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return []string{
		show.Bytes(int64(t.ReceivedBytes)), count(t.ReceivedPackets), show.Bytes(int64(t.SentBytes)), count(t.SentPackets),
		count(t.RefusedEgressPackets + t.RefusedIngressPackets),
	}
}
