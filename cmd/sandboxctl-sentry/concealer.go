// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"
)

// concealer writes the names of private variables in the place of their values. gVisor
// logs what it starts, and prints of an application that can't be executed what it
// was. The lines of its log come whole.
type concealer struct {
	next   io.Writer
	values []concealed
}

type concealed struct{ value, name []byte }

// shortestSecret is the length from which a value is told from ordinary words.
const shortestSecret = 4

// conceal takes the values of the first private variables out of what is written from
// now on.
func (c *concealer) conceal(env []string, private int) {
	for _, e := range env[:max(0, min(private, len(env)))] {
		name, value, _ := strings.Cut(e, "=")
		if len(value) < shortestSecret {
			continue
		}
		// As a log may show it: quoted by JSON or Go, too.
		asJSON, _ := json.Marshal(value) // never fails for a string
		for _, form := range []string{value, unquote(string(asJSON)), unquote(strconv.Quote(value))} {
			c.values = append(c.values, concealed{[]byte(form), []byte("$(" + name + ")")})
		}
	}
	// A value may be a part of another one.
	slices.SortStableFunc(c.values, func(a, b concealed) int { return cmp.Compare(len(b.value), len(a.value)) })
}

// unquote is a string without the quotes around it, and with what is escaped in it.
func unquote(s string) string { return s[1 : len(s)-1] }

// Write implements io.Writer.
func (c *concealer) Write(b []byte) (int, error) {
	out := b
	for _, v := range c.values {
		out = bytes.ReplaceAll(out, v.value, v.name)
	}
	if _, err := c.next.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}
