// SPDX-License-Identifier: Apache-2.0

package yamldoc

import "strings"

// Touches says whether the path of a field is, is in, or contains one of the bad ones.
func Touches(bad map[string]bool, path string) bool {
	for b := range bad {
		if within(path, b) || within(b, path) {
			return true
		}
	}
	return false
}

// Besides says whether something next to a field is bad. A field that is
// missing there was most likely misspelt.
func Besides(bad map[string]bool, path string) bool {
	parent := path[:max(strings.LastIndexByte(path, '.'), 0)]
	for b := range bad {
		if b[:max(strings.LastIndexByte(b, '.'), 0)] == parent {
			return true
		}
	}
	return false
}

func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}
