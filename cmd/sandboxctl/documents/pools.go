// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/reconcile/places"
)

// poolStatus is what there is to say of a pool.
type poolStatus struct {
	// Ready is how many places wait for claims.
	Ready int `json:"ready"`
	// Claimed is how many claims have a sandbox that has not finished.
	Claimed int `json:"claimed"`
	// Image is the digest that claims get.
	Image string `json:"image,omitempty"`
	// Message is what the pool waits for.
	Message string `json:"message,omitempty"`
}

func poolStatusOf(w *world.World, o *desired.Object) *poolStatus {
	_, name, _ := objects.Split(o.Name())
	taken := places.Of(w.In.Desired, w.In.LastGood, w.In.Actual, w.In.Starts)
	s := &poolStatus{Claimed: taken.Taken(name)}
	for _, p := range w.Plan.Pins {
		if p.Name == o.Name() {
			s.Image = p.Digest
		}
	}
	for i := range w.Plan.PoolsWait {
		if d := &w.Plan.PoolsWait[i]; d.Name == o.Name() {
			s.Message = d.Reason + ": " + d.Describe(w.In.Now)
		}
	}
	return s
}

// fillReady adds how many places are ready.
func fillReady(h *world.Host, found []document) {
	if !slices.ContainsFunc(found, func(d document) bool { return d.Status.poolStatus != nil }) {
		return
	}
	ready := h.ReadyPlaces()
	for i := range found {
		if s := found[i].Status.poolStatus; s != nil {
			s.Ready = ready[found[i].Metadata.Name]
		}
	}
}

func (d *document) pool() *desired.PoolSpec {
	p, _ := d.Spec.(*desired.PoolSpec)
	return p
}

// limit is the most claims that a pool allows.
func limit(p *desired.PoolSpec) string {
	if p.Max == 0 {
		return ""
	}
	return strconv.Itoa(p.Max)
}

func printPools(out io.Writer, found []document) error {
	rows := make([][]string, len(found))
	for i := range found {
		d := &found[i]
		p, s := d.pool(), d.Status.poolStatus
		rows[i] = []string{show.Clean(d.Metadata.Name), fmt.Sprintf("%d/%d", s.Ready, *p.Size), strconv.Itoa(s.Claimed), limit(p), p.UpdateStrategy, show.Clean(d.source()), show.Clean(s.Message)}
	}
	return show.Table(out, []string{"NAME", "READY", "CLAIMED", "MAX", "UPDATE", "SOURCE", "MESSAGE"}, rows)
}

// printPool prints what describe says of a pool alone.
func (d *document) printPool(out io.Writer) {
	s := d.Status.poolStatus
	fmt.Fprintf(out, "\nReady: %d of %d\nClaimed: %d\n", s.Ready, *d.pool().Size, s.Claimed)
	if s.Image != "" {
		fmt.Fprintf(out, "Image: %s\n", show.Clean(s.Image))
	}
	if s.Message != "" {
		fmt.Fprintf(out, "Waits: %s\n", show.Clean(s.Message))
	}
}

// claimStatus is what there is to say of a claim beside its sandbox.
type claimStatus struct {
	Phase string `json:"phase"`
	// Place is ready or cold: how the sandbox was started, "" if that is not known.
	Place string `json:"place,omitempty"`
}

// claimSpec is that of a claim as it is printed.
type claimSpec struct{ *desired.ClaimSpec }

// Value is the pool: a claim has no other key.
func (c claimSpec) Value(string) string { return c.Pool }

// claims are those that are asked for, or all.
func (q *Query) claims(w *world.World) ([]document, error) {
	out := []document{}
	for i := range w.In.Desired.Entries {
		e := &w.In.Desired.Entries[i]
		if e.Claim == nil || len(q.names) > 0 && !slices.Contains(q.names, e.Sandbox.Metadata.Name) {
			continue
		}
		name := e.Sandbox.Metadata.Name
		d := document{
			APIVersion: desired.APIVersion, Kind: desired.ClaimKind, Metadata: metadata{name}, Spec: claimSpec{&e.Claim.ClaimSpec},
			Status: status{Keys: []string{"pool"}, UsedBy: []string{name}, SourceFile: e.Source.File, SourceLine: e.Source.Line, claimStatus: &claimStatus{}},
		}
		if s := w.Status(name); s != nil {
			d.Status.Phase = s.Phase
		}
		d.Status.Place = placeOf(w.Record(name))
		out = append(out, d)
	}
	for _, n := range q.names {
		if !slices.ContainsFunc(out, func(d document) bool { return d.Metadata.Name == n }) {
			return nil, fmt.Errorf("no SandboxClaim %q in the manifests directory", n)
		}
	}
	return out, nil
}

func placeOf(rec *actual.Record) string {
	switch {
	case rec == nil || rec.Start == nil || rec.Start.Way == "":
		return ""
	case rec.Start.Way == actual.WayCold:
		return "cold"
	}
	return "ready"
}

func printClaims(out io.Writer, w *world.World, found []document) error {
	rows := make([][]string, len(found))
	for i := range found {
		d := &found[i]
		rows[i] = []string{show.Clean(d.Metadata.Name), d.Spec.Value("pool"), d.Status.Phase, d.Status.Place, show.Clean(d.source()), ""}
		if s := w.Status(d.Metadata.Name); s != nil {
			rows[i][5] = show.Clean(strings.Join(slices.DeleteFunc([]string{world.Headline(s), world.EndText(s)}, func(t string) bool { return t == "" }), "; "))
		}
	}
	return show.Table(out, []string{"NAME", "POOL", "PHASE", "PLACE", "SOURCE", "MESSAGE"}, rows)
}

// shortest is what other verbs call it.
func (d *document) shortest() string {
	if d.Kind == desired.ClaimKind {
		return d.Metadata.Name
	}
	return d.fullName()
}
