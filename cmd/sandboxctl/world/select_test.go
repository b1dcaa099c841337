// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"strings"
	"testing"

	"sandboxctl.dev/cmd/sandboxctl/exit"
)

func TestParseSelector(t *testing.T) {
	t.Parallel()
	labels := map[string]string{"app": "web", "tier": "back", "empty": ""}
	for s, want := range map[string]bool{
		"app=web": true, "app==web": true, "app=api": false, "app!=api": true, "app!=web": false, "none!=x": true, "none=x": false,
		"app": true, "none": false, "!none": true, "!app": false, "empty=": true, "empty": true, "app=": false,
		"app=web,tier=back": true, "app=web, tier=front": false, "app,!none,tier!=front": true, "app=web,app=api": false,
	} {
		match, err := parseSelector(s)
		if err != nil || match(labels) != want {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if got := match(nil); got && strings.HasPrefix(s, "app") && !strings.HasPrefix(s, "app!") {
			t.Errorf("%s selects what has no labels", s)
		}
	}
	for _, bad := range []string{"", ",", "=x", "!", "a=b=c", "a in (b)", "app=web,", "!=x", "a b"} {
		var e *exit.Error
		if _, err := parseSelector(bad); !errors.As(err, &e) || e.Code != exit.Usage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
