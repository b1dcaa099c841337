// SPDX-License-Identifier: Apache-2.0

// Package expand makes sandboxes of the documents that stand for them: of a claim, and the template
// of its pool. What it makes are entries like those of manifests, with the claim as their source.
// It is a function of the manifests and the records.
//
// A claim that has a sandbox keeps what that was made of, whatever becomes of the pool: the record
// says what it was, and for which claim. Only its lifetime and whether it is suspended follow the
// claim at once.
package expand

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/reconcile/needs"
)

// Expander is for one goroutine, and keeps what need not be decoded twice.
type Expander struct {
	recorded map[string]recorded // by the name of the sandbox
}

// recorded is the decoded manifest of a record, nil if it can't be used.
type recorded struct {
	rec *actual.Record
	sb  *desired.Sandbox
}

// Claims returns a snapshot in which each claim is the sandbox that it stands for. Without claims
// it is the one given.
func (x *Expander) Claims(want *desired.Snapshot, have *actual.Snapshot) *desired.Snapshot {
	if !slices.ContainsFunc(want.Entries, func(e desired.Entry) bool { return e.Claim != nil }) {
		x.recorded = nil
		return want
	}
	out := *want
	out.Entries = slices.Clone(want.Entries)
	kept := map[string]recorded{}
	next := 0 // both are sorted
	for i := range out.Entries {
		e := &out.Entries[i]
		if e.Claim == nil {
			continue
		}
		name := e.Sandbox.Metadata.Name
		for next < len(have.Sandboxes) && have.Sandboxes[next].Record.Name < name {
			next++
		}
		var on *desired.Sandbox
		if next < len(have.Sandboxes) && have.Sandboxes[next].Record.Name == name {
			r := x.decode(have.Sandboxes[next].Record)
			kept[name], on = r, r.sb
		}
		*e = entry(e, want, on)
	}
	x.recorded = kept
	return &out
}

func (x *Expander) decode(rec *actual.Record) recorded {
	r, known := x.recorded[rec.Name]
	if known && r.rec == rec {
		return r
	}
	r = recorded{rec: rec}
	if e, err := desired.FromCanonical(rec.Spec, rec.SourceFile); err == nil {
		r.sb = e.Sandbox
	}
	return r
}

// Claim is the entry of a claim that has no sandbox yet. Its Claim says what keeps it from one.
func Claim(e *desired.Entry, want *desired.Snapshot) desired.Entry { return entry(e, want, nil) }

// entry is that of a claim. on is what its sandbox was made of last, nil if there is none.
func entry(e *desired.Entry, want *desired.Snapshot, on *desired.Sandbox) desired.Entry {
	c := &desired.Claim{ClaimSpec: e.Claim.ClaimSpec}
	id := identify(&c.ClaimSpec)
	pool, missing := poolOf(want, c.Pool)
	bound := on != nil && on.Metadata.Annotations[desired.ClaimAnnotation] == id
	sb, err := (*desired.Sandbox)(nil), error(nil)
	switch {
	case bound:
		sb = &desired.Sandbox{APIVersion: on.APIVersion, Kind: on.Kind, Spec: on.Spec}
	case pool == nil:
		c.Reason, c.Why = actual.ReasonInputMissing, "spec.pool: "+missing
	default:
		if sb, err = fill(pool, &c.ClaimSpec, e.Sandbox.Metadata.Name); err != nil {
			c.Reason, c.Why = actual.ReasonManifestInvalid, "with the template of "+desired.Described(objects.Name(objects.Pool, c.Pool))+": "+err.Error()
		}
	}
	if sb == nil { // nothing is started of it; what there is stays as it is
		sb = &desired.Sandbox{APIVersion: e.Sandbox.APIVersion, Kind: e.Sandbox.Kind, Spec: e.Sandbox.Spec}
		sb.Spec.Root = desired.Root{}
		if on != nil {
			sb.Spec = on.Spec
		}
	}
	if pool != nil {
		c.Max = pool.Max
	}
	sb.Metadata = metadata(e.Sandbox.Metadata, c.Pool, id)
	sb.Spec.Suspend = c.Suspend
	switch {
	case c.TTL != nil:
		sb.Spec.ActiveDeadline = c.TTL
	case pool != nil:
		sb.Spec.ActiveDeadline = pool.Template.ActiveDeadline
	}
	if want.Policy != nil && c.Why == "" {
		if errs := want.Policy.Check(sb); len(errs) > 0 {
			c.Reason, c.Why = desired.ReasonPolicyDenied, errs[0].Field+": "+errs[0].Message
		}
	}
	return desired.Entry{Sandbox: sb, Hash: desired.Hash(sb), Source: e.Source, Claim: c}
}

// poolOf finds a pool, or says why there is none.
func poolOf(want *desired.Snapshot, name string) (pool *desired.PoolSpec, missing string) {
	full := objects.Name(objects.Pool, name)
	if o := want.Objects.Lookup(full); o != nil {
		return o.Pool, ""
	}
	f := needs.Absent(want, full)
	if f.Problem != "" {
		return nil, f.Problem
	}
	return nil, f.Lacks
}

// metadata is that of a claim, with what the sandbox was made of.
func metadata(m desired.Metadata, pool, id string) desired.Metadata {
	m.Annotations = maps.Clone(m.Annotations)
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations[desired.PoolAnnotation], m.Annotations[desired.ClaimAnnotation] = pool, id
	return m
}

// identify is what a change of makes another sandbox: all of a claim but what takes effect without
// a start.
func identify(c *desired.ClaimSpec) string {
	of := *c
	of.TTL, of.Suspend = nil, false
	b, err := json.Marshal(of)
	if err != nil {
		return "" // only types of desired are in it, none of which can fail
	}
	sum := sha256.Sum256(b)
	return "v1:" + hex.EncodeToString(sum[:])
}

// fill is the template with what a claim adds, with defaults and checked.
func fill(pool *desired.PoolSpec, c *desired.ClaimSpec, name string) (*desired.Sandbox, error) {
	// Nothing of the pool or the claim may be shared: defaults are filled in.
	b, err := json.Marshal(pool.Template)
	if err != nil {
		return nil, fmt.Errorf("encode the template: %w", err)
	}
	more, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode the claim: %w", err)
	}
	sb := &desired.Sandbox{APIVersion: desired.APIVersion, Kind: desired.Kind, Metadata: desired.Metadata{Name: name}}
	var own desired.ClaimSpec
	if err := errors.Join(json.Unmarshal(b, &sb.Spec), json.Unmarshal(more, &own)); err != nil {
		return nil, fmt.Errorf("decode what was encoded: %w", err)
	}
	spec := &sb.Spec
	switch {
	case len(own.Command) > 0:
		spec.Command, spec.Args = own.Command, own.Args
	case len(own.Args) > 0:
		spec.Args = own.Args
	}
	for _, v := range own.Env {
		spec.Env = append(slices.DeleteFunc(spec.Env, func(old desired.EnvVar) bool { return old.Name == v.Name }), v)
	}
	spec.Volumes = append(spec.Volumes, own.Volumes...)
	desired.Default(sb)
	var wrong []string
	for _, e := range desired.Validate(sb) {
		wrong = append(wrong, e.Field+": "+e.Message)
	}
	if len(wrong) > 0 {
		return nil, errors.New(strings.Join(wrong, "; "))
	}
	return sb, nil
}
