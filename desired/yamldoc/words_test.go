// SPDX-License-Identifier: Apache-2.0

package yamldoc

import "testing"

// The words that YAML 1.1 takes for booleans are those, in any letters, and no others.
func TestBoolWords(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]bool{
		"y": true, "Yes": true, "nO": true, "ON": true, "off": true, "True": true, "FALSE": true,
		"": false, "ye": false, "yes ": false, "on\n": false, "offf": false, "truefalse": false, "1": false, "~": false,
	} {
		if isBool(word) != want {
			t.Errorf("%q: %t", word, !want)
		}
	}
}
