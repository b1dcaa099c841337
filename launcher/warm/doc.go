// SPDX-License-Identifier: Apache-2.0

// Package warm keeps processes that wait for a sandbox: sentries and gofers that have done
// what they can do without one. A start that takes them is the shorter by that.
//
// They are on record before they are offered, each is taken once, and none is taken whose
// programs or host policy are not those of now. They leave with the daemon.
package warm
