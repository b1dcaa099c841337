// SPDX-License-Identifier: Apache-2.0

package scalar

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestTime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Time{
		"2026-12-01T00:00:00Z": time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), "2026-12-01T01:00:00+01:00": time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC),
		"2026-12-01T00:00:00.5Z": time.Date(2026, 12, 1, 0, 0, 0, 5e8, time.UTC),
	} {
		var v, back Time
		if err := json.Unmarshal([]byte(`"`+text+`"`), &v); err != nil || !v.Equal(want) {
			t.Errorf("%s: %s, %v", text, v, err)
		}
		b, err := json.Marshal(v)
		if err != nil || string(b) != `"`+text+`"` || json.Unmarshal(b, &back) != nil || !back.Equal(want) {
			t.Errorf("%s is written as %s (%v)", text, b, err)
		}
	}
	for _, bad := range []string{`"2026-12-01"`, `"2026-12-01T00:00:00"`, `"tomorrow"`, `5`, `""`, `"2026-13-01T00:00:00Z"`, `null`} {
		if err := new(Time).UnmarshalJSON([]byte(bad)); err == nil || !strings.Contains(err.Error(), "2026-12-01T00:00:00Z") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
