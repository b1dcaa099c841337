// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"sandboxctl.dev/actual/ownjson"
	"sandboxctl.dev/desired/ownnotes"
)

// hashV1 prefixes the hashes of the first scheme. A later scheme gets another
// prefix, and HashMatches computes each as it was, so that an upgrade of this
// program restarts nothing.
const hashV1 = "v1:"

// Hash is the versioned hash of everything in a defaulted manifest whose change
// needs a new sandbox: the spec without its Lifecycle, its pull policy, and the rules of its
// network. Names of files,
// labels and annotations do not count, but for what identifies a claim.
//
// New fields of Spec must be omitted from its JSON at their default value, or
// every hash changes; a golden test holds this.
func Hash(s *Sandbox) string { return sumV1(s) }

// HashMatches says whether recorded is the hash of s in the scheme that
// recorded was made with.
func HashMatches(recorded string, s *Sandbox) bool {
	return strings.HasPrefix(recorded, hashV1) && recorded == sumV1(s)
}

func sumV1(s *Sandbox) string {
	spec := withFields(s)
	spec.Lifecycle = Lifecycle{}
	spec.Network = spec.Network.Restarting()
	spec.Volumes = withoutShared(spec.Volumes)
	if img := spec.Root.Image; img != nil {
		// When an image is fetched is not what runs.
		spec.Root.Image = &ImageRoot{Ref: img.Ref, Digest: img.Digest}
	}
	// Only types of this package are in it, none of which can fail.
	b, err := json.Marshal(spec)
	if err != nil {
		return hashV1 + "invalid: " + err.Error()
	}
	// Another claim gets another sandbox, also of an equal spec: or its record would stay that of
	// the claim before, which keeps it from nothing that becomes of the template.
	sum := sha256.Sum256(append(b, s.Metadata.Annotations[ownnotes.Claim]...))
	return hashV1 + hex.EncodeToString(sum[:])
}

// withoutShared are volumes without what only decides on a warning, and without sizes, which
// change beside what runs.
func withoutShared(volumes []Volume) []Volume {
	sized := func(v Volume) bool { return v.Volume != nil && v.Volume.Size != 0 }
	if !slices.ContainsFunc(volumes, func(v Volume) bool { return v.Shared || sized(v) }) {
		return volumes
	}
	volumes = slices.Clone(volumes)
	for i := range volumes {
		volumes[i].Shared = false
		if sized(volumes[i]) {
			volumes[i].Volume = &NamedVolume{Name: volumes[i].Volume.Name}
		}
	}
	return volumes
}

// Canonical is the JSON of a defaulted manifest, for the record.
func Canonical(s *Sandbox) ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return b, nil
}

// Recall reads what Canonical wrote in the same build of this program, of a
// text with the digest given: nothing about it needs to be found out again.
func Recall(b []byte, hash, digest string) (*Entry, error) {
	sb := new(Sandbox)
	if err := ownjson.Unmarshal(b, sb); err != nil {
		return nil, fmt.Errorf("decode recorded manifest: %w", err)
	}
	return &Entry{Sandbox: sb, Hash: hash, Digest: digest}, nil
}

// FromCanonical reads what Canonical wrote, perhaps in an older version: it is
// defaulted and validated again. source is the manifest it came from.
func FromCanonical(b []byte, source string) (*Entry, error) {
	sb := new(Sandbox)
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(sb); err != nil {
		return nil, fmt.Errorf("decode recorded manifest: %w", err)
	}
	Default(sb)
	if errs := Validate(sb); len(errs) > 0 {
		return nil, fmt.Errorf("decode recorded manifest: %s: %s", errs[0].Field, errs[0].Message)
	}
	return &Entry{Sandbox: sb, Hash: Hash(sb), Source: Position{File: source}}, nil
}
