// SPDX-License-Identifier: Apache-2.0

// Package hostpolicy is what the administrator of a host lets manifests ask for:
// the policy, its file, its defaults, and the judgement of a manifest by it.
//
// A file that is wrong in any way, half written, or that others could change is an
// error, and then nothing is allowed: half of a policy must not decide.
package hostpolicy
