// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/ownnotes"
	expansion "sandboxctl.dev/reconcile/expand"
)

// isPool says whether a full name is that of a SandboxPool.
func isPool(name string) bool { return strings.HasPrefix(name, objects.Name(objects.Pool, "")) }

// judgeClaims finds claims that do not fit the template of their pool, which no document alone can
// tell, and those without a pool.
func judgeClaims(entries []desired.Entry, in *desired.Snapshot) (problems []desired.Problem, warnings []desired.Warning) {
	for i := range entries {
		e := &entries[i]
		if e.Claim == nil {
			continue
		}
		name := e.Sandbox.Metadata.Name
		switch c := expansion.Claim(e, in).Claim; c.Reason {
		case actual.ReasonManifestInvalid:
			problems = append(problems, desired.Problem{Position: e.Source, Name: name, Field: "spec", Message: c.Why})
		case desired.ReasonPolicyDenied:
			problems = append(problems, desired.Problem{Position: e.Source, Name: name, Field: "spec", Reason: c.Reason, Message: c.Why})
		case "":
		default:
			warnings = append(warnings, desired.Warning{Position: e.Source, Message: name + ": " + c.Why + "; the claim waits for it", Names: []string{name}})
		}
	}
	return problems, warnings
}

// withDocuments is a snapshot in which the documents given count before its own.
func withDocuments(in *desired.Snapshot, docs []desired.Document) *desired.Snapshot {
	out := *in
	out.Objects = slices.Clone(in.Objects)
	for i := range docs {
		d := &docs[i]
		if d.Object == nil {
			continue
		}
		o := desired.Object{Object: d.Object, Declared: d.Declared, Source: d.Position}
		at, found := slices.BinarySearchFunc(out.Objects, o.Name(), func(o desired.Object, name string) int { return cmp.Compare(o.Name(), name) })
		if found {
			out.Objects[at] = o
		} else {
			out.Objects = slices.Insert(out.Objects, at, o)
		}
	}
	return &out
}

// checkClaims refuses claims that can't become sandboxes, and warns of those that wait for a pool.
func (v verbs) checkClaims(in *desired.Snapshot, ms []manifest) error {
	var docs []desired.Document
	var entries []desired.Entry
	for i := range ms {
		docs = append(docs, ms[i].Document)
		if ms[i].Claim != nil {
			entries = append(entries, ms[i].Entry())
		}
	}
	problems, warnings := judgeClaims(entries, withDocuments(in, docs))
	for _, w := range warnings {
		fmt.Fprintf(v.Stderr, "warning: %s\n", w.Error())
	}
	if len(problems) > 0 {
		return problemsError(problems)
	}
	return nil
}

// ClaimDocument is what the document of a claim says.
func ClaimDocument(e *desired.Entry) *desired.ClaimDocument {
	m := e.Sandbox.Metadata
	m.Annotations = ownnotes.Without(m.Annotations)
	return &desired.ClaimDocument{APIVersion: desired.APIVersion, Kind: desired.ClaimKind, Metadata: m, Spec: e.Claim.ClaimSpec}
}

// claimYAML is a claim for those who compare two: what its sandbox is made of is the pool's.
func claimYAML(e *desired.Entry) ([]byte, error) {
	b, err := yaml.Marshal(ClaimDocument(e))
	if err != nil {
		return nil, fmt.Errorf("encode claim: %w", err)
	}
	return b, nil
}

// entryYAML is what a document of a sandbox or of a claim says.
func entryYAML(e *desired.Entry) ([]byte, error) {
	if e.Claim != nil {
		return claimYAML(e)
	}
	return canonicalYAML(e.Sandbox)
}
