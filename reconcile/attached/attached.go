// SPDX-License-Identifier: Apache-2.0

// Package attached tells what running sandboxes lack of their networks: links that somebody
// has removed, ports that can't be published, bandwidth that can't be limited, what a CHECK of
// CNI has said, and what documents say by now. The daemon finds all but the last out, which
// keeps links and rules; here is what it means. Pure.
package attached

import (
	"fmt"
	"slices"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
)

// Lack is what one run of a sandbox lacks.
type Lack struct {
	UID     string `json:"uid"`
	Attempt int64  `json:"attempt"`
	// Gone are the networks that it has no link to any more.
	Gone []string `json:"gone,omitempty"`
	// Refused says of ports why they are not published.
	Refused []string `json:"refused,omitempty"`
	// Unlimited says why its bandwidth is not what it should be, "" if it is.
	Unlimited string `json:"unlimited,omitempty"`
	// Check is what plugins of CNI say is wrong.
	Check string `json:"check,omitempty"`
	// Dropping are chains of other programs that drop what its links carry.
	Dropping []string `json:"dropping,omitempty"`
}

// of is what a record lacks, nothing if it is of another run.
func of(found map[string]Lack, rec *actual.Record) Lack {
	l := found[rec.Name]
	if rec.Phase != actual.PhaseRunning || l.UID != rec.UID || l.Attempt != rec.Attempt {
		return Lack{}
	}
	return l
}

// Gone says whether a running sandbox has lost a link. The kernel can't give it another
// one: the sentry's packet socket is one of the interface that is gone.
func Gone(found map[string]Lack, rec *actual.Record) bool { return len(of(found, rec).Gone) > 0 }

// Warn adds to the warnings of a running sandbox.
func Warn(warnings []actual.Warning, want *desired.Snapshot, found map[string]Lack, rec *actual.Record) []actual.Warning {
	l := of(found, rec)
	out := slices.Clip(warnings)
	if why := Outdated(want, rec); why != "" && rec.Phase == actual.PhaseRunning {
		out = append(out, actual.Warning{Reason: actual.WarningNetworkOutdated, Message: why + "; it is restarted for that as soon as nothing keeps it: `sandboxctl plan` says what does"})
	}
	if len(l.Gone) > 0 {
		out = append(out, actual.Warning{Reason: actual.WarningNetworkGone, Message: "its link to " + strings.Join(l.Gone, ", ") + " was removed; it is restarted, which gives it another one"})
	}
	if len(l.Refused) > 0 {
		out = append(out, actual.Warning{Reason: actual.WarningPortNotPublished, Message: strings.Join(l.Refused, "; ")})
	}
	if l.Check != "" {
		out = append(out, actual.Warning{Reason: actual.WarningNetworkCheckFailed, Message: l.Check + "; `sandboxctl restart " + rec.Name + "` makes its network again"})
	}
	if l.Unlimited != "" {
		out = append(out, actual.Warning{Reason: actual.WarningBandwidthNotLimited, Message: l.Unlimited})
	}
	if len(l.Dropping) > 0 {
		out = append(out, actual.Warning{Reason: actual.WarningForwardingDropped, Message: Dropped(l.Dropping)})
	}
	return out
}

// Dropped is a sentence about chains of other programs that drop what is forwarded.
func Dropped(chains []string) string {
	return fmt.Sprintf("the firewall of another program drops what the host forwards (%s), as far as no rule of it accepts it, and has no rule about sandboxes: what these send and are sent may not arrive; have it accept what comes from and goes to interfaces whose names begin with sb", strings.Join(chains, ", "))
}
