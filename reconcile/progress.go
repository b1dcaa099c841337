// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/reconcile/attached"
	"sandboxctl.dev/reconcile/declared"
	"sandboxctl.dev/reconcile/namespaces"
	"sandboxctl.dev/reconcile/pulling"
)

// Operation is an operation under way, as far as it can lose its reason.
type Operation struct {
	Op      Op            `json:"op,omitzero"`
	Hash    string        `json:"hash,omitempty"`    // of the spec that is created
	Restart string        `json:"restart,omitempty"` // the token of the request that is carried out
	Grace   time.Duration `json:"grace,omitempty"`
	Netns   string        `json:"netns,omitempty"`   // of what is created
	Removes bool          `json:"removes,omitempty"` // for good
	// Cancelled says that it was told to end.
	Cancelled bool `json:"cancelled,omitempty"`
}

// Progress is what the loop knows beside manifests and records, which others who compute the
// same plan need: what it does, and what it waits with because it failed.
type Progress struct {
	// Operations are under way, by name. Those names are left alone, but for
	// operations that have lost their reason.
	Operations map[string]Operation `json:"operations,omitempty"`
	// Retries are operations that failed, by name.
	Retries map[string]Retry `json:"retries,omitempty"`
	// Tried are the tokens of requests to repair that were tried, by name.
	Tried map[string]string `json:"tried,omitempty"`
	// Pulls are under way, by reference.
	Pulls map[string]pulling.Running `json:"pulls,omitempty"`
	// Pulled are what was fetched for a start that has not begun, by name.
	Pulled map[string]pulling.Done `json:"pulled,omitempty"`
	// PullRetries are pulls that failed, by reference.
	PullRetries map[string]pulling.Retry `json:"pullRetries,omitempty"`
	// VolumeRetries are actions on declared volumes that failed, by name.
	VolumeRetries map[string]declared.Retry `json:"volumeRetries,omitempty"`
	// Lacks are what sandboxes lack of their networks, by name.
	Lacks map[string]attached.Lack `json:"lacks,omitempty"`
	// Led are subnets that documents say and that routes of the host lead into, each with one.
	Led map[string]string `json:"led,omitempty"`
}

// busy says whether an operation on a name is under way.
func (p *Progress) busy(name string) bool {
	_, busy := p.Operations[name]
	return busy
}

// Starts says whether an operation on a name makes a sandbox, or ends one for which another is made.
func (p *Progress) Starts(name string) bool {
	return p.Operations[name].Op == OpCreate || p.Operations[name].Op == OpDestroy
}

// Operation is what the planner is told of an action under way.
func (a *Action) Operation() Operation {
	op := Operation{Op: a.Op, Restart: a.Request.ID(), Grace: a.Ending.Grace, Removes: a.Reason == actual.ReasonManifestRemoved}
	if a.Entry != nil {
		op.Hash, op.Netns = a.Entry.Hash, namespaces.Named(a.Entry)
	}
	return op
}
