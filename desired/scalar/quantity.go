// SPDX-License-Identifier: Apache-2.0

package scalar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// CPU is an amount of processor in thousandths of one: 500m is half of one.
type CPU int64

// UnmarshalJSON reads "500m", "2", 2 or 0.5, rounded up to thousandths.
func (c *CPU) UnmarshalJSON(b []byte) error {
	const want = `expected processors such as "500m" or 2`
	s, err := word(b)
	if err != nil {
		return fmt.Errorf("%s, got %s", want, b)
	}
	if m, ok := strings.CutSuffix(s, "m"); ok {
		n, err := strconv.ParseUint(m, 10, 63)
		if err != nil {
			return fmt.Errorf("%s, got %q", want, s)
		}
		*c = CPU(n)
		return nil
	}
	r, ok := decimal(s)
	if !ok {
		return fmt.Errorf("%s, got %q", want, s)
	}
	n, ok := roundUp(r.Mul(r, big.NewRat(1000, 1)))
	if !ok {
		return fmt.Errorf("%s, got %q, which is too large", want, s)
	}
	*c = CPU(n)
	return nil
}

// roundUp is the smallest whole number that is not below r, if an int64 can
// hold it. A part of a byte or of a thousandth is given whole, as in Kubernetes:
// 1.2Gi is no whole number of bytes and no mistake.
func roundUp(r *big.Rat) (int64, bool) {
	n, rest := new(big.Int).DivMod(r.Num(), r.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		n.Add(n, big.NewInt(1))
	}
	return n.Int64(), n.IsInt64()
}

// MarshalJSON writes thousandths: "500m".
func (c CPU) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// String gives "2" or "500m".
func (c CPU) String() string {
	if c%1000 == 0 {
		return strconv.FormatInt(int64(c)/1000, 10)
	}
	return strconv.FormatInt(int64(c), 10) + "m"
}

// Bytes is an amount of memory or disk.
type Bytes int64

var byteUnits = []struct {
	suffix string
	factor int64
}{
	{"Ki", 1 << 10},
	{"Mi", 1 << 20},
	{"Gi", 1 << 30},
	{"Ti", 1 << 40},
	{"k", 1e3},
	{"M", 1e6},
	{"G", 1e9},
	{"T", 1e12},
	{"", 1},
}

// UnmarshalJSON reads "256Mi", "1.2Gi" or a number of bytes, rounded up to whole
// bytes.
func (v *Bytes) UnmarshalJSON(b []byte) error {
	const want = `expected an amount such as "256Mi" or "1G"`
	s, err := word(b)
	if err != nil {
		return fmt.Errorf("%s, got %s", want, b)
	}
	for _, u := range byteUnits {
		num, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		r, ok := decimal(num)
		if !ok {
			return fmt.Errorf("%s, got %q", want, s)
		}
		n, ok := roundUp(r.Mul(r, new(big.Rat).SetInt64(u.factor)))
		if !ok {
			return fmt.Errorf("%s, got %q, which is too large", want, s)
		}
		*v = Bytes(n)
		return nil
	}
	return fmt.Errorf("%s, got %q", want, s)
}

// MarshalJSON writes the amount with the largest unit that divides it.
func (v Bytes) MarshalJSON() ([]byte, error) { return json.Marshal(v.String()) }

// String gives "256Mi".
func (v Bytes) String() string {
	for _, u := range []int{3, 2, 1, 0} {
		if f := byteUnits[u]; v != 0 && int64(v)%f.factor == 0 {
			return strconv.FormatInt(int64(v)/f.factor, 10) + f.suffix
		}
	}
	return strconv.FormatInt(int64(v), 10)
}

// word is the text of a JSON string or number.
func word(b []byte) (string, error) {
	if s, err := Text(b); err == nil && len(b) > 0 && b[0] == '"' {
		return s, nil
	}
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil {
		return "", err
	}
	return n.String(), nil
}

// Text is the text of a JSON string. Nearly all hold nothing that stands for something
// else: these take no decoder, of which there are several for each manifest on record.
func Text(b []byte) (s string, err error) {
	if n := len(b) - 1; n > 0 && b[0] == '"' && b[n] == '"' && !bytes.ContainsFunc(b[1:n], func(r rune) bool { return r < ' ' || r >= utf8.RuneSelf || r == '"' || r == '\\' }) {
		return string(b[1:n]), nil
	}
	err = json.Unmarshal(b, &s)
	return s, err
}

// decimal reads digits with at most one point: no sign, exponent or fraction,
// of which a big.Rat could be made to take all memory.
func decimal(s string) (*big.Rat, bool) {
	if s == "" || len(s) > 24 || s == "." {
		return nil, false
	}
	point := false
	for _, c := range []byte(s) {
		switch {
		case c == '.' && !point:
			point = true
		case c < '0' || c > '9':
			return nil, false
		}
	}
	return new(big.Rat).SetString(s)
}
