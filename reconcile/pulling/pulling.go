// SPDX-License-Identifier: Apache-2.0

// Package pulling is what is known of images that are being fetched: for which starts,
// how far, and what has failed. It decides when a pull is tried again, and nothing else.
package pulling

import (
	"errors"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/imageref"
)

// maxMessage bounds a message: there may be one for each image.
const maxMessage = 500

// Pull is an image that has to be fetched.
type Pull struct {
	imageref.PullRequest

	// Needs are what it is for, one for each sandbox.
	Needs []Need
}

// Need is a start that needs an image: of one spec of one sandbox, and of one request
// to restart it.
type Need struct {
	Name    string `json:"name"`
	Hash    string `json:"hash"`
	Restart string `json:"restart,omitempty"`
}

// Running is a pull under way.
type Running struct {
	imageref.PullRequest

	Needs []Need    `json:"needs"`
	Began time.Time `json:"began"`
	// Step says how far it is.
	Step string `json:"step,omitempty"`
	// Cancelled says that it was told to end.
	Cancelled bool `json:"cancelled,omitempty"`
}

// Done is what was fetched for a need.
type Done struct {
	Need

	Digest string `json:"digest"`
}

// Retry is a pull that failed, and keeps it from being tried again at once.
type Retry struct {
	Failures int       `json:"failures"`
	Due      time.Time `json:"due"`
	Needs    []Need    `json:"needs"`
	// Reason is ReasonImageNotFound or ReasonPullFailed.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// PreconditionFailed says that it fails again until somebody changes the image, its
	// source or this host.
	PreconditionFailed bool `json:"preconditionFailed,omitempty"`
}

// Delays of pulls that failed: a registry that is down is not asked all the time.
const (
	retryInitial = 5 * time.Second
	retryMax     = 5 * time.Minute
)

// Failed notes one more failure.
func (r *Retry) Failed(needs []Need, err error, now time.Time) {
	r.Failures++
	for _, n := range needs {
		// Of one sandbox only what it needed last.
		r.Needs = append(slices.DeleteFunc(r.Needs, func(old Need) bool { return old.Name == n.Name }), n)
	}
	if r.Reason = actual.ReasonPullFailed; errors.Is(err, operation.ErrImageNotFound) {
		r.Reason = actual.ReasonImageNotFound
	}
	r.PreconditionFailed = r.Reason == actual.ReasonImageNotFound || operation.PreconditionFailed(err)
	msg := err.Error()
	r.Message = strings.ToValidUTF8(msg[:min(len(msg), maxMessage)], "")
	r.Due = now.Add(min(retryInitial<<min(r.Failures-1, 6), retryMax))
}

// Delays says until when a pull must wait because of the failure, zero if it need not.
// A new manifest and a restart that somebody asked for are tried at once.
func (r *Retry) Delays(need Need, now time.Time) time.Time {
	wait := r.Due.Sub(now)
	// Further away than any delay is: the clock was changed.
	if wait <= 0 || wait > 2*retryMax || !slices.Contains(r.Needs, need) {
		return time.Time{}
	}
	return r.Due
}
