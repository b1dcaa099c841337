// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"slices"
	"strings"

	"sandboxctl.dev/desired/fields"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/yamldoc"
)

// The kinds of documents that this program reads, all of one API version.
const (
	APIVersion = "sandboxctl.dev/v1alpha1"
	Kind       = "Sandbox"      // of manifests
	ClaimKind  = "SandboxClaim" // of sandboxes that are made of the template of a pool
	PolicyKind = "HostPolicy"   // of the file of the host policy
)

// KindInfo is one kind of document.
type KindInfo struct {
	APIVersion, Kind string
	// What a document of the kind is, for messages.
	What   string
	Schema func() *yamldoc.Schema
	// read fills in what a document says that was compared with the schema. It counts
	// only if there is no problem.
	read func(*yamldoc.Doc, Policy, *Document)
}

// Kinds are those that may be in one place.
type Kinds []KindInfo

// ManifestKinds are the kinds of documents that a manifests directory may hold.
var ManifestKinds = Kinds{
	{APIVersion, Kind, aManifest, manifestSchema, readSandbox},
	{APIVersion, objects.Config, aManifest, configSchema, readConfig},
	{APIVersion, objects.Secret, aManifest, secretSchema, readSecret},
	{APIVersion, objects.Volume, aManifest, volumeSchema, readVolume},
	{APIVersion, objects.Network, aManifest, networkSchema, readNetwork},
	{APIVersion, objects.Pool, aManifest, poolSchema, readPool},
	{APIVersion, ClaimKind, aManifest, claimSchema, readClaim},
}

const aManifest = "a manifest with apiVersion, kind, metadata and spec"

// Wanted is what a document begins with, for messages.
func (ks Kinds) Wanted() string {
	return "kind: " + strings.Join(each(ks, func(k *KindInfo) string { return k.Kind }), " or ")
}

// Check finds the kind of a document by its apiVersion and kind and compares the
// document with it. It returns nil if there is no such kind, and reports why. Where
// one of the two is missing, the other may be enough to tell which kind is meant.
func (ks Kinds) Check(d *yamldoc.Doc) *KindInfo {
	if !d.IsObject() {
		d.Report("", "", fmt.Sprintf("expected %s, got %s", strings.Join(each(ks, func(k *KindInfo) string { return k.What }), " or "), d.Describe()))
		return nil
	}
	left := ks
	for _, part := range []struct {
		key string
		of  func(*KindInfo) string
	}{
		{"kind", func(k *KindInfo) string { return k.Kind }},
		{"apiVersion", func(k *KindInfo) string { return k.APIVersion }},
	} {
		if value, ok := d.Scalar(part.key); ok {
			known := each(left, part.of)
			left = slices.DeleteFunc(slices.Clone(left), func(k KindInfo) bool { return part.of(&k) != value })
			if len(left) == 0 {
				d.ReportValue(part.key, fmt.Sprintf("expected %s, got %q", fields.Choice(known), value))
				return nil // the rest is about something else
			}
		}
	}
	// A document without a kind that has a spec is a Sandbox.
	if _, ok := d.Scalar("kind"); !ok && len(left) > 1 && d.HasTop("spec") {
		left = slices.DeleteFunc(slices.Clone(left), func(k KindInfo) bool { return k.Kind != Kind })
	}
	if len(left) > 1 {
		missing, names := "kind", each(left, func(k *KindInfo) string { return k.Kind })
		if len(names) == 1 {
			missing, names = "apiVersion", each(left, func(k *KindInfo) string { return k.APIVersion })
		}
		d.Report(missing, "", "is missing: expected "+fields.Choice(names))
		return nil
	}
	d.Check(left[0].Schema())
	return &left[0]
}

// each returns what the kinds have, without repetitions.
func each(ks Kinds, of func(*KindInfo) string) []string {
	var out []string
	for i := range ks {
		if s := of(&ks[i]); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
