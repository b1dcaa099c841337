// SPDX-License-Identifier: Apache-2.0

// Package values takes in the values of Config and Secret documents, as text and in base64. What it
// finds wrong tells no value: it may be a secret.
package values

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/yamldoc"
)

// Reader takes in values, and reports what is wrong with them.
type Reader struct {
	// Values are those that were taken in, by key.
	Values map[string][]byte

	report func(field, format string, args ...any)
	at     map[string]string // where each key is
}

// NewReader returns a reader without values.
func NewReader(report func(field, format string, args ...any)) *Reader {
	return &Reader{Values: map[string][]byte{}, report: report, at: map[string]string{}}
}

// Key checks a key of a field, and notes where it is.
func (r *Reader) Key(field, key string) (at string, ok bool) {
	at = yamldoc.Join(field, key)
	switch first := r.at[key]; {
	case !objects.ValidKey(key):
		r.report(at, "expected a key of %s", objects.KeyRule)
	case first != "":
		r.report(at, "%s is given twice, also as %s; remove one of them", key, first)
	default:
		r.at[key] = at
		return at, true
	}
	return at, false
}

// Text takes in values that are not encoded.
func (r *Reader) Text(field string, data map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(data)) {
		if _, ok := r.Key(field, k); ok {
			r.Values[k] = []byte(data[k])
		}
	}
}

// Base64 takes in values that are encoded; plain is the field for those that are not.
func (r *Reader) Base64(field string, data map[string]string, plain string) {
	for _, k := range slices.Sorted(maps.Keys(data)) {
		at, ok := r.Key(field, k)
		if !ok {
			continue
		}
		// As base64(1) wraps it.
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(data[k]), ""))
		if err != nil {
			r.report(at, "expected base64; text that is not encoded belongs into %s", plain)
			continue
		}
		r.Values[k] = b
	}
}
