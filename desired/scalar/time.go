// SPDX-License-Identifier: Apache-2.0

package scalar

import (
	"encoding/json"
	"fmt"
	"time"

	"sandboxctl.dev/desired/yamldoc"
)

// Time is a moment by the wall clock, written as in RFC 3339: "2026-12-01T00:00:00Z".
type Time struct{ time.Time }

// UnmarshalJSON reads a time that says its offset from UTC: which moment it is must not
// depend on where the host thinks it is.
func (t *Time) UnmarshalJSON(b []byte) error {
	const want = "expected a time with its offset from UTC, such as 2026-12-01T00:00:00Z or 2026-12-01T01:00:00+01:00"
	s, err := Text(b)
	if err != nil {
		return fmt.Errorf("%s, got %s", want, b)
	}
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return fmt.Errorf("%s, got %q", want, yamldoc.Clip(s))
	}
	t.Time = v
	return nil
}

// MarshalJSON writes the time as it was given.
func (t Time) MarshalJSON() ([]byte, error) { return json.Marshal(t.Format(time.RFC3339Nano)) }
