// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// report is what a run has found, as it stands in the JSON file.
type report struct {
	Machine machine           `json:"machine"`
	Rows    []*row            `json:"rows"`
	Summary map[string]result `json:"summary"`
}

// result is a row in short.
type result struct {
	Subjects map[string]summary `json:"subjects"`
	// Value is what the goal is about: a ratio, a difference or a median; 0 if there
	// is nothing to compare with.
	Value float64 `json:"value"`
	Met   *bool   `json:"met,omitempty"`
}

func (r *row) result() result {
	out := result{Subjects: map[string]summary{}}
	for name, values := range r.Series {
		out.Subjects[name] = summarize(values)
	}
	base, measured := out.Subjects[r.Base]
	if _, ours := out.Subjects[sandboxctlName]; !ours || r.Base != "" && !measured {
		return out // a median is no ratio: the goal is not about it
	}
	out.Value = out.Subjects[sandboxctlName].Median
	switch {
	case r.Differ:
		out.Value -= base.Median
	case measured:
		out.Value /= base.Median
	}
	if r.Goal > 0 {
		met := out.Value <= r.Goal
		out.Met = &met
	}
	return out
}

func newReport(m machine, rows []*row) report {
	rep := report{Machine: m, Rows: rows, Summary: map[string]result{}}
	for _, r := range rows {
		rep.Summary[r.ID] = r.result()
	}
	return rep
}

// markdown is the table of the documentation.
func (rep report) markdown() string {
	var b strings.Builder
	m := rep.Machine
	fmt.Fprintf(&b, "%d × %s, %d MiB, Linux %s, %s, %s; load %s before and %s after; %s.\n\n", m.Processors, m.Processor, m.MemoryMiB, m.Kernel, m.System, m.Filesystem,
		m.LoadBefore, m.LoadAfter, m.At.Format("2006-01-02"))
	for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
		fmt.Fprintf(&b, "- %s: %s\n", name, m.Versions[name])
	}
	b.WriteString("\n| what | sandboxctl | compared with | value | goal |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range rep.Rows {
		s := rep.Summary[r.ID]
		var others []string
		for _, name := range subjectsOf(r) {
			if name != sandboxctlName {
				others = append(others, name+" "+s.Subjects[name].format(r.Unit))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(r.Notes)) {
			others = append(others, name+" is not measured: "+r.Notes[name])
		}
		value, goal, ours := "", "", ""
		if v, ok := s.Subjects[sandboxctlName]; ok {
			ours = v.format(r.Unit)
		}
		if _, ok := s.Subjects[r.Base]; ok && ours != "" {
			value = fmt.Sprintf("%.2f", s.Value)
			if r.Differ {
				value = fmt.Sprintf("%+.1f %s", s.Value, r.Unit)
			}
		}
		if s.Met != nil {
			unit := ""
			if r.Base == "" || r.Differ {
				unit = " " + r.Unit
			}
			goal = fmt.Sprintf("≤ %g%s: %s", r.Goal, unit, map[bool]string{true: "met", false: "**missed**"}[*s.Met])
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.What, ours, strings.Join(others, "<br>"), value, goal)
	}
	return b.String()
}

// format is the median with the quartiles.
func (s summary) format(unit string) string {
	if s.N == 1 {
		return fmt.Sprintf("%.1f %s", s.Median, unit)
	}
	return fmt.Sprintf("%.1f %s (%.1f to %.1f)", s.Median, unit, s.Q1, s.Q3)
}

// subjectsOf is sandboxctl, what it is compared with, then the others by name.
func subjectsOf(r *row) []string {
	rank := func(name string) int {
		return map[string]int{sandboxctlName: -2, r.Base: -1}[name]
	}
	return slices.SortedFunc(maps.Keys(r.Series), func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
}
