// SPDX-License-Identifier: Apache-2.0

// Package expand makes sandboxes of the documents that stand for them: of a claim, and the template
// of its pool. What it makes are entries like those of manifests, with the claim as their source.
// It is a function of the manifests and the records.
//
// A claim that has a sandbox keeps what that was made of, whatever becomes of the pool: the record
// says what it was, and for which claim. Only its lifetime, whether it is suspended, and the sizes
// and sharing of its volumes follow the claim at once.
package expand

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/ownnotes"
	"sandboxctl.dev/desired/scalar"
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
		if _, there := kept[name]; there && on == nil {
			e.Claim.From = e.Claim.Pool // what it is of can't be told: it keeps its place
		}
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
	var was map[string]string // what the record says of the claim before
	if on != nil {
		was = on.Metadata.Annotations
		c.From = was[ownnotes.Pool]
	}
	bound, deadline := on != nil && was[ownnotes.Claim] == id, was[ownnotes.Deadline]
	if !bound && pool != nil {
		deadline = text(pool.Template.ActiveDeadline)
	}
	sb, err := (*desired.Sandbox)(nil), error(nil)
	switch {
	case bound:
		sb = &desired.Sandbox{APIVersion: on.APIVersion, Kind: on.Kind, Spec: on.Spec}
		sb.Spec.Volumes = follow(on.Spec.Volumes, c.Volumes)
	case pool == nil:
		c.Reason, c.Why = actual.ReasonInputMissing, "spec.pool: "+missing
	default:
		if sb, err = fill(pool, &c.ClaimSpec, e.Sandbox.Metadata.Name); err != nil {
			c.Reason, c.Why = actual.ReasonManifestInvalid, "with the template of "+desired.Described(objects.Name(objects.Pool, c.Pool))+": "+err.Error()
		}
	}
	if sb == nil { // nothing is started of it; what there is stays as it is, and of the claim before
		id, deadline = was[ownnotes.Claim], was[ownnotes.Deadline]
		sb = &desired.Sandbox{APIVersion: e.Sandbox.APIVersion, Kind: e.Sandbox.Kind, Spec: e.Sandbox.Spec}
		sb.Spec.Root = desired.Root{}
		if on != nil {
			sb.Spec = on.Spec
		}
		if on != nil && id == "" {
			deadline = text(on.Spec.ActiveDeadline)
		}
	}
	if pool != nil {
		c.Max = pool.Max
	}
	sb.Metadata = e.Sandbox.Metadata
	sb.Metadata.Annotations = note(e.Sandbox.Metadata.Annotations, map[string]string{ownnotes.Pool: c.Pool, ownnotes.Claim: id, ownnotes.Deadline: deadline})
	sb.Spec.Suspend, sb.Spec.ActiveDeadline = c.Suspend, c.TTL
	// That of the template is the one of its binding: another one would end what lives.
	if d, err := time.ParseDuration(deadline); err == nil && c.TTL == nil {
		sb.Spec.ActiveDeadline = new(scalar.Duration(d))
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

// text is a deadline, "" if there is none.
func text(d *scalar.Duration) string {
	if d == nil {
		return ""
	}
	return time.Duration(*d).String()
}

// note adds what the sandbox was made of to the annotations of a claim.
func note(annotations, own map[string]string) map[string]string {
	out := ownnotes.Without(annotations)
	if out == nil {
		out = map[string]string{}
	}
	for name, value := range own {
		if value != "" {
			out[name] = value
		}
	}
	return out
}

// follow gives volumes what their claim says of them and needs no start.
func follow(volumes, claim []desired.Volume) []desired.Volume {
	volumes = slices.Clone(volumes)
	for i := range volumes {
		for j := range claim {
			if v := &claim[j]; v.Name == volumes[i].Name || v.Name == "" && v.Volume != nil && v.Volume.Name == volumes[i].Name {
				volumes[i].Shared, volumes[i].Volume = v.Shared, v.Volume
			}
		}
	}
	return volumes
}

// identify is what a change of makes another sandbox: all of a claim but what takes effect without
// a start.
func identify(c *desired.ClaimSpec) string {
	of := *c
	of.TTL, of.Suspend, of.Volumes = nil, false, slices.Clone(c.Volumes)
	for i := range of.Volumes {
		v := &of.Volumes[i]
		if v.Shared = false; v.Volume != nil {
			v.Volume = &desired.NamedVolume{Name: v.Volume.Name}
		}
	}
	b, err := json.Marshal(of)
	if err != nil {
		return "" // only types of desired are in it, none of which can fail
	}
	sum := sha256.Sum256(b)
	return "v2:" + hex.EncodeToString(sum[:])
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
