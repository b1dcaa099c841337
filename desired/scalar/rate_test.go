// SPDX-License-Identifier: Apache-2.0

package scalar

import (
	"encoding/json"
	"testing"
)

func TestRate(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct {
		bits int64
		text string
	}{
		"10Mbit": {10e6, "10Mbit"}, "10mbit": {10e6, "10Mbit"}, "1.5Gbit": {15e8, "1500Mbit"}, "500kbit": {500e3, "500kbit"}, "64000bit": {64e3, "64kbit"}, "0.0005kbit": {1, "1bit"},
	} {
		var r Rate
		if err := json.Unmarshal([]byte(`"`+in+`"`), &r); err != nil || int64(r) != want.bits || r.String() != want.text {
			t.Errorf("%s: %d, %s, %v", in, int64(r), r, err)
		}
		b, err := json.Marshal(r)
		var back Rate
		if err != nil || json.Unmarshal(b, &back) != nil || back != r {
			t.Errorf("%s written as %s: %d", in, b, int64(back))
		}
	}
	for _, bad := range []string{`"10"`, `10`, `"10M"`, `"10Mbps"`, `"Mbit"`, `"-1Mbit"`, `"1e3bit"`, `"0Mbit"`, `"99999999999999Gbit"`, `"bit"`, `""`, `true`, `"10 Mbit"`} {
		var r Rate
		if err := json.Unmarshal([]byte(bad), &r); err == nil {
			t.Errorf("%s is taken for %s", bad, r)
		}
	}
}
