// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/launcher/firewall"
)

// What the table says is told, and what it does not say is never zero.
func TestTraffic(t *testing.T) {
	t.Parallel()
	rec := &actual.Record{Name: "web", Attachments: []actual.Attachment{{Network: "default"}}}
	c := &counters{table: "t", read: true, all: map[string]firewall.Counts{
		"web": {SentBytes: 2048, SentPackets: 3, ReceivedBytes: 1024, ReceivedPackets: 2, DeniedPackets: 5, BarredPackets: 7},
	}}
	got, err := c.of(rec)
	want := traffic{ReceivedBytes: 1024, ReceivedPackets: 2, SentBytes: 2048, SentPackets: 3, RefusedEgressPackets: 5, RefusedIngressPackets: 7}
	if err != nil || got == nil || *got != want {
		t.Errorf("%+v %v", got, err)
	}
	if cells := got.columns(); cells[1] != "2" || cells[3] != "3" || cells[4] != "12" {
		t.Errorf("%q", cells)
	}
	none, err := c.of(&actual.Record{Name: "alone"})
	if none != nil || err != nil || slices.ContainsFunc(none.columns(), func(s string) bool { return s != "-" }) {
		t.Errorf("without a network: %+v %v", none, err)
	}
	if got, err := c.of(&actual.Record{Name: "db", Attachments: rec.Attachments}); got != nil || err == nil || !strings.Contains(err.Error(), "the table t of nftables") {
		t.Errorf("of one without counters: %+v %v", got, err)
	}
	c.err = errors.New("no permission")
	if got, err := c.of(rec); got != nil || !errors.Is(err, c.err) {
		t.Errorf("%+v %v", got, err)
	}
}
