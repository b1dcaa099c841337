// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"fmt"

	"sandboxctl.dev/desired/yamldoc"
)

// Without returns a manifest file without the documents of one full name. It returns
// nil if nothing else is in it. Every other byte stays.
func Without(file string, data []byte, name string) ([]byte, error) {
	if len(data) > yamldoc.MaxFileBytes {
		return nil, fmt.Errorf("%s has more than %d bytes", file, yamldoc.MaxFileBytes) // and perhaps more than we were given
	}
	var out []byte
	found, kept := false, false
	for _, c := range yamldoc.Split(data, len(data)+1) {
		doc, _, _ := decodeDocument(file, c, nil)
		if doc.Name == name && doc.Foreign == "" {
			found = true
			continue
		}
		kept = true
		if !bytes.HasPrefix(c.Text, []byte("---")) && len(out) > 0 {
			out = append(out, "---\n"...)
		}
		out = append(out, c.Text...)
	}
	if !found {
		return nil, fmt.Errorf("%s does not define %s", file, Described(name))
	}
	if !kept {
		return nil, nil
	}
	return out, nil
}
