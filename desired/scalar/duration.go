// SPDX-License-Identifier: Apache-2.0

package scalar

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a time.Duration written as in Go: "10s", "1m30s".
type Duration time.Duration

// UnmarshalJSON reads a duration string.
func (d *Duration) UnmarshalJSON(b []byte) error {
	s, err := Text(b)
	if err != nil {
		return fmt.Errorf("expected a duration such as \"10s\", got %s", b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("expected a duration such as \"10s\", got %q", s)
	}
	*d = Duration(v)
	return nil
}

// Quoted says that a number alone is no duration: it has no unit.
func (Duration) Quoted() {}

// MarshalJSON writes the duration as time.Duration.String does.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).String())
}
