// SPDX-License-Identifier: Apache-2.0

package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"sandboxctl.dev/actual/untrusted"
)

// JSON prints JSON in lines for people, in characters that a terminal does not obey.
func JSON(w io.Writer, v any) error { return encodeJSON(w, v, "  ") }

// JSONLine prints JSON on one line.
func JSONLine(w io.Writer, v any) error { return encodeJSON(w, v, "") }

func encodeJSON(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(Escaped(b.Bytes()))
	return err
}

// Escaped replaces what JSON leaves as it is in strings and a terminal obeys.
func Escaped(b []byte) []byte {
	if bytes.IndexFunc(b, untrusted.Obeyed) < 0 {
		return b
	}
	out := make([]byte, 0, len(b)+100)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if untrusted.Obeyed(r) && r != '\n' {
			out = fmt.Appendf(out, "\\u%04x", r)
		} else {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out
}

// YAML prints YAML.
func YAML(w io.Writer, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode YAML: %w", err)
	}
	_, err = w.Write(b)
	return err
}
