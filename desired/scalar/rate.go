// SPDX-License-Identifier: Apache-2.0

package scalar

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// Rate is a number of bits in a second.
type Rate int64

var rateUnits = []struct {
	suffix string
	factor int64
}{{"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

// UnmarshalJSON reads "10Mbit", in either case, rounded up to whole bits.
func (r *Rate) UnmarshalJSON(b []byte) error {
	const want = `expected bits in a second such as "10Mbit" or "500kbit"`
	s, err := Text(b)
	if err != nil {
		return fmt.Errorf("%s, got %s", want, b)
	}
	for _, u := range rateUnits {
		at := len(s) - len(u.suffix)
		if at < 0 || !strings.EqualFold(s[at:], u.suffix) {
			continue
		}
		n, ok := decimal(s[:at])
		if !ok {
			return fmt.Errorf("%s, got %q", want, s)
		}
		bits, ok := roundUp(n.Mul(n, new(big.Rat).SetInt64(u.factor)))
		if !ok {
			return fmt.Errorf("%s, got %q, which is too large", want, s)
		}
		if bits == 0 {
			return fmt.Errorf("%s, got %q; leave it out for no limit", want, s)
		}
		*r = Rate(bits)
		return nil
	}
	return fmt.Errorf("%s, got %q", want, s)
}

// Quoted says that a number alone is no rate: it has no unit.
func (Rate) Quoted() {}

// MarshalJSON writes the rate with the largest unit that divides it.
func (r Rate) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// String gives "10Mbit".
func (r Rate) String() string {
	for _, u := range rateUnits {
		if r != 0 && int64(r)%u.factor == 0 {
			return strconv.FormatInt(int64(r)/u.factor, 10) + u.suffix
		}
	}
	return "0bit"
}
