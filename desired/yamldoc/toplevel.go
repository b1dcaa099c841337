// SPDX-License-Identifier: Apache-2.0

package yamldoc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// TopLevel finds the keys of the top level of a document and what stands beside them.
// A list of the top level has the key "-". It does not parse what is below.
func TopLevel(text []byte) (map[string]string, bool) {
	trimmed := bytes.TrimSpace(text)
	switch {
	case len(trimmed) > 0 && trimmed[0] == '{':
		return topLevelJSON(trimmed)
	case len(trimmed) > 0 && trimmed[0] == '[':
		return map[string]string{"-": ""}, true
	}
	top := map[string]string{}
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, " \t\r\n")
		switch {
		case len(line) == 0, line[0] == '#', line[0] == ' ', line[0] == '\t', bytes.HasPrefix(line, []byte("---")):
			continue
		case line[0] == '-':
			if len(top) == 0 {
				top["-"] = ""
			}
			continue
		}
		key, value, ok := strings.Cut(string(line), ":")
		if !ok || value != "" && value[0] != ' ' && value[0] != '\t' {
			continue // of a text over several lines, or nothing that is YAML
		}
		if len(top) < MaxNodes {
			top[strings.Trim(key, `"' `)] = strings.Trim(string(WithoutComment([]byte(value))), `"'`)
		}
	}
	return top, len(top) > 0
}

func topLevelJSON(text []byte) (map[string]string, bool) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if _, err := dec.Token(); err != nil {
		return nil, false
	}
	top := map[string]string{}
	for dec.More() && len(top) < MaxNodes {
		key, err := dec.Token()
		if err != nil {
			return nil, false
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, false
		}
		var s string
		_ = json.Unmarshal(value, &s) // "" for what is no string
		top[fmt.Sprint(key)] = s
	}
	return top, true
}
