// SPDX-License-Identifier: Apache-2.0

// Package loop makes what a plan says happen: it looks, has reconcile.Compute decide,
// and carries the actions out, as many at a time as each lane allows. What it knows
// beside manifests and records is reconcile.Progress, which the next plan is made with
// and which others can read. It decides nothing itself.
package loop
