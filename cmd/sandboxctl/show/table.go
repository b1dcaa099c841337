// SPDX-License-Identifier: Apache-2.0

// Package show prints what verbs have found: tables, JSON and YAML, and text from
// a sandbox or a manifest without what a terminal would obey. It knows how to print
// and not what: each verb makes its own rows.
package show

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// Table prints aligned columns.
func Table(w io.Writer, header []string, rows [][]string) error {
	// A tabwriter writes every cell and every gap by itself.
	b := bufio.NewWriter(w)
	tw := tabwriter.NewWriter(b, 0, 8, 3, ' ', 0)
	if len(header) > 0 {
		fmt.Fprintln(tw, strings.Join(header, "\t"))
	}
	for _, r := range rows {
		for i := range r {
			if r[i] == "" {
				r[i] = "-"
			}
		}
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// Columns print a table that grows: a column is as wide as its widest cell was.
type Columns struct {
	rows   [][]string
	widths []int
}

// Add adds a row, which Print prints.
func (c *Columns) Add(row []string) { c.rows = append(c.rows, row) }

// Print prints what was added since it was called last.
func (c *Columns) Print(w io.Writer) error {
	for _, r := range c.rows {
		for i := range r {
			if r[i] == "" {
				r[i] = "-"
			}
			if i == len(c.widths) {
				c.widths = append(c.widths, 0)
			}
			c.widths[i] = max(c.widths[i], utf8.RuneCountInString(r[i]))
		}
	}
	var b strings.Builder
	for _, r := range c.rows {
		for i, cell := range r[:len(r)-1] {
			fmt.Fprintf(&b, "%-*s   ", c.widths[i], cell)
		}
		fmt.Fprintln(&b, r[len(r)-1])
	}
	c.rows = nil
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}
