// SPDX-License-Identifier: Apache-2.0

package imageref

// PullPolicy says when an image is fetched from where its reference points.
type PullPolicy string

// The policies, with the names and meanings that Kubernetes gives them.
const (
	// PullIfNotPresent fetches an image that the store does not have. It asks nobody
	// if the store has resolved the reference before.
	PullIfNotPresent PullPolicy = "IfNotPresent"
	// PullAlways asks the source on each start what the reference means, and fetches
	// what the store does not have.
	PullAlways PullPolicy = "Always"
	// PullNever takes what is in the store.
	PullNever PullPolicy = "Never"
)

// PullRequest says which image to fetch, and how.
type PullRequest struct {
	// Ref is the whole reference.
	Ref string `json:"ref"`
	// Policy is Always if the source is to be asked what the reference means now.
	Policy PullPolicy `json:"policy"`
	// Digest is what the image must have, "" if that follows from the reference.
	Digest string `json:"digest,omitempty"`
}
