// SPDX-License-Identifier: Apache-2.0

package yamldoc

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// maxExpected is how many fields a message lists that has a better hint as well.
const maxExpected = 8

// unknown describes the error for a key that is not a field, with the field that its
// author may have meant. parent is the path of the object.
func (s *Schema) unknown(t reflect.Type, key, path, parent string) string {
	if s.Unknown != nil {
		if msg, ok := s.Unknown(t, key, path, parent); ok {
			return msg
		}
	}
	msg := fmt.Sprintf("unknown field %q", Clip(key))
	names := slices.Sorted(maps.Keys(FieldsOf(t)))
	if n := Nearest(key, names); n != "" {
		return msg + fmt.Sprintf("; did you mean %q?", n)
	}
	if where := fieldIndex(s.Type)[key]; len(where) > 0 {
		msg += fmt.Sprintf(" here; it belongs to %s", strings.Join(where, " or "))
		// The name may as well be a wrong one for a field that is expected here.
		if len(names) > maxExpected {
			return msg
		}
		return msg + "; expected here is one of " + strings.Join(names, ", ")
	}
	return msg + "; expected one of " + strings.Join(names, ", ")
}

var fieldIndexes sync.Map // reflect.Type → map[string][]string

// fieldIndex maps every field name of a kind of document to the paths it is
// found at.
func fieldIndex(root reflect.Type) map[string][]string {
	if m, ok := fieldIndexes.Load(root); ok {
		return m.(map[string][]string)
	}
	index := map[string][]string{}
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			if t.Kind() == reflect.Slice {
				path += "[]"
			}
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return
		}
		for _, f := range sortedFields(FieldsOf(t)) {
			index[f.Name] = append(index[f.Name], cmp.Or(path, "the top level"))
			walk(f.Type, strings.TrimPrefix(path+"."+f.Name, "."))
		}
	}
	walk(root, "")
	fieldIndexes.Store(root, index)
	return index
}

// Nearest is the candidate that a word was probably meant to be, or "".
func Nearest(word string, candidates []string) string {
	best, bestDist := "", len(word)/3+2
	for _, c := range candidates {
		if strings.EqualFold(c, word) {
			return c
		}
		if abs(len(c)-len(word)) >= bestDist {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < bestDist {
			best, bestDist = c, d
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// distance is the number of letters to insert, remove, replace or swap with
// their neighbour to make a of b.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}

// Nearly says whether one word is another but for so many letters.
func Nearly(a, b string, most int) bool {
	return abs(len(a)-len(b)) <= most && distance(a, b) <= most
}
