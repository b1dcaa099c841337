// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"html"
	"strings"
)

// Measures of the chart, in pixels.
const (
	chartWidth = 760
	labelWidth = 300
	barHeight  = 16
	rowHeight  = 30
	top        = 40
)

// svg draws a bar for each ratio to runsc, with a line at 1 and a mark at the goal.
func (rep report) svg() string {
	var rows []*row
	longest := 1.0
	for _, r := range rep.Rows {
		if _, ok := rep.Summary[r.ID].Subjects[r.Base]; ok && r.Base == runscName && !r.Differ {
			rows = append(rows, r)
			longest = max(longest, rep.Summary[r.ID].Value)
		}
	}
	x := func(ratio float64) float64 { return labelWidth + ratio/longest*(chartWidth-labelWidth-60) }
	height := top + rowHeight*len(rows) + 20
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" role="img">`+"\n", chartWidth, height, chartWidth, height)
	fmt.Fprintf(&b, `<title>sandboxctl compared with runsc of the same gVisor, shorter is better</title>`+"\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n")
	fmt.Fprintf(&b, `<text x="10" y="20" font-size="14">Ratio to runsc of the same gVisor (shorter is better; | is the goal)</text>`+"\n")
	for i, r := range rows {
		y, v := top+rowHeight*i, rep.Summary[r.ID].Value
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth-8, y+barHeight-4, html.EscapeString(r.ID))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="#3b6ea5"/>`+"\n", labelWidth, y, x(v)-labelWidth, barHeight)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.2f</text>`+"\n", x(v)+6, y+barHeight-4, v)
		if r.Goal > 0 {
			fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#c0392b" stroke-width="2"/>`+"\n", x(r.Goal), x(r.Goal), y-4, y+barHeight+4)
		}
	}
	fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#888" stroke-dasharray="4 3"/>`+"\n</svg>\n", x(1), x(1), top-8, height-12)
	return b.String()
}
