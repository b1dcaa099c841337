// SPDX-License-Identifier: Apache-2.0

package scalar

import (
	"encoding/json"
	"testing"
)

func TestQuantities(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{`"500m"`: 500, `2`: 2000, `"0.25"`: 250, `1.5`: 1500} {
		var c CPU
		if err := json.Unmarshal([]byte(in), &c); err != nil || int64(c) != want {
			t.Errorf("%s: %d %v", in, c, err)
		}
	}
	for in, want := range map[string]int64{`"256Mi"`: 256 << 20, `"1.5Gi"`: 3 << 29, `"1k"`: 1000, `1024`: 1024, `"2T"`: 2e12} {
		var v Bytes
		if err := json.Unmarshal([]byte(in), &v); err != nil || int64(v) != want {
			t.Errorf("%s: %d %v", in, v, err)
		}
		b, err := json.Marshal(v)
		var back Bytes
		if err != nil || json.Unmarshal(b, &back) != nil || back != v {
			t.Errorf("%s written as %s", in, b)
		}
	}
	for _, bad := range []string{`"-1"`, `"1e9"`, `"Mi"`, `"1Xi"`, `true`, `null`, `"1/0"`, `"9999999999999999999999999"`} {
		var v Bytes
		if err := json.Unmarshal([]byte(bad), &v); err == nil {
			t.Errorf("%s is %d bytes", bad, v)
		}
	}
}

func TestRoundUp(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Bytes{
		"1.2Gi": 1288490189, "0.1Ki": 103, "1.5Gi": 1610612736, "100.0000001k": 100001, "1": 1, "0.5": 1, "9223372036854775807": 1<<63 - 1,
	} {
		var b Bytes
		if err := b.UnmarshalJSON([]byte(`"` + text + `"`)); err != nil || b != want {
			t.Errorf("%s is %d (%v), expected %d", text, int64(b), err, int64(want))
		}
	}
	for text, want := range map[string]CPU{"0.0005": 1, "1.0001": 1001, "0.5": 500, "2": 2000} {
		var c CPU
		if err := c.UnmarshalJSON([]byte(text)); err != nil || c != want {
			t.Errorf("%s is %d (%v), expected %d", text, int64(c), err, int64(want))
		}
	}
	for _, text := range []string{"9223372036854775808", "9999999999Ti", "-1", "1e3", "1.2.3", "", "Gi", "1Pib"} {
		if err := new(Bytes).UnmarshalJSON([]byte(`"` + text + `"`)); err == nil {
			t.Errorf("%q is taken for an amount", text)
		}
	}
}
