// SPDX-License-Identifier: Apache-2.0

package actual

// RestartFollows says whether the next start, of the spec with the hash given, is a
// restart: the sandbox ran, and ended by itself or because somebody asked for a
// restart. The start of another spec, after a suspension, of what never ran, or of
// what the end of a daemon cut short is none.
func (r *Record) RestartFollows(specHash string) bool {
	if r.SpecHash != specHash || r.Ending == nil || r.LastExit != nil && r.LastExit.Reason == ReasonCancelled {
		return false
	}
	switch r.Ending.Reason {
	case "SpecChanged", "Suspended", "ManifestRemoved", "Interrupted":
		return false
	}
	return true
}
