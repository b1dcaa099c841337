// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"sandboxctl.dev/actual/untrusted"
)

// table prints aligned columns.
func table(w io.Writer, header []string, rows [][]string) error {
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

// checkOutput checks what -o was given; nothing stands for the table.
func checkOutput(output string, formats ...string) error {
	if output == "" || slices.Contains(formats, output) {
		return nil
	}
	list := strings.Join(formats[:len(formats)-1], ", ")
	if list != "" {
		list += " or "
	}
	return usagef("-o: expected %s, got %q", list+formats[len(formats)-1], output)
}

// columns print a table that goes on: a column is as wide as its widest cell was.
type columns struct {
	rows   [][]string
	widths []int
}

func (c *columns) add(row []string) { c.rows = append(c.rows, row) }

// print prints what was added since it was called last.
func (c *columns) print(w io.Writer) error {
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

func printJSON(w io.Writer, v any) error { return encodeJSON(w, v, "  ") }

// printJSONLine prints JSON on one line.
func printJSONLine(w io.Writer, v any) error { return encodeJSON(w, v, "") }

func encodeJSON(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escaped(b.Bytes()))
	return err
}

// escaped replaces what JSON leaves as it is in strings and a terminal obeys.
func escaped(b []byte) []byte {
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

func printYAML(w io.Writer, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode YAML: %w", err)
	}
	_, err = w.Write(b)
	return err
}

// age words how long ago something was, as kubectl does.
func age(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// clean makes text from a sandbox or a manifest fit for one line of a
// terminal, where control characters would be obeyed.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if untrusted.Obeyed(r) {
			return ' '
		}
		return r
	}, s)
}

// cleanLines is clean for text of several lines.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return strings.Join(lines, "\n")
}

// isTerminal says whether a stream is one.
func isTerminal(stream any) bool {
	f, ok := stream.(interface{ Fd() uintptr })
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// bytesText words an amount of memory.
func bytesText(n int64) string {
	switch {
	case n < 0:
		return ""
	case n < 1<<20:
		return fmt.Sprintf("%.1fKi", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1fMi", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2fGi", float64(n)/(1<<30))
}

// cleanLine is clean for a line of a log, which may have tabs and colours: all
// escape sequences but colours are taken out. What is no UTF-8 is replaced: the
// halves of a control character, in two parts of a line, would make it whole.
func cleanLine(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if n := colour(s[i:]); n > 0 {
			b.WriteString(s[i : i+n])
			i += n
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == '\t' || r >= ' ' && (r < 0x7f || r >= 0xa0) {
			b.WriteRune(r)
		} else {
			b.WriteByte(' ')
		}
		i += n
	}
	return b.String()
}

// colour is the length of the colour sequence that s begins with, or 0.
func colour(s string) int {
	if !strings.HasPrefix(s, "\x1b[") {
		return 0
	}
	for i := 2; i < len(s) && i < 32; i++ {
		switch c := s[i]; {
		case c == 'm':
			return i + 1
		case c != ';' && (c < '0' || c > '9'):
			return 0
		}
	}
	return 0
}
