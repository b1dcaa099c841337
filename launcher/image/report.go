// SPDX-License-Identifier: Apache-2.0

package image

import "time"

// PullVerb is the verb of sandboxctl-image with which the daemon has it pull one image:
// STATE, POLICY, REFERENCE, BENEATH and REGISTRIES are its arguments. A local reference is
// opened below BENEATH, which is empty for others. REGISTRIES is the path of the file about
// registries, empty for RegistriesPath. It prints reports, a line each.
const PullVerb = "pull-for-daemon"

// ReportEvery is how often there is a report at least.
const ReportEvery = 10 * time.Second

// Report is a step, or the result, which is the last one.
type Report struct {
	Step *Step `json:"step,omitempty"`
	// Digest is that of the image that is in the store.
	Digest string `json:"digest,omitempty"`
	// Error says why there is none, and Code what that means.
	Error string `json:"error,omitempty"`
	Code  string `json:"code,omitempty"`
}

const (
	// CodeMissing says that there is no such image.
	CodeMissing = "missing"
	// CodeRefused says that it fails again until somebody changes the image, its registry
	// or what this host knows of it, such as the credentials.
	CodeRefused = "refused"
)
