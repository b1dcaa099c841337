// SPDX-License-Identifier: Apache-2.0

package images

import (
	"fmt"
	"io"
	"strings"
	"time"

	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/image"
)

// progress tells how far a pull is: by a bar on a terminal, which is drawn again and
// again, and by few lines elsewhere.
type progress struct {
	out      io.Writer
	ref      string
	terminal bool
	last     image.Step
	drawn    time.Time // when the bar was
	told     int64     // tenths of the phase that a line was written for
	width    int       // of the bar that is there
}

// drawEvery bounds how often the bar is drawn.
const drawEvery = 100 * time.Millisecond

// barWidth is how many cells the bar has.
const barWidth = 24

func (v *Verbs) progress(ref string, quiet bool) *progress {
	p := &progress{out: v.Stderr, ref: show.Clean(ref), terminal: show.IsTerminal(v.Stderr)}
	if quiet {
		p.out = io.Discard
	}
	return p
}

// tell implements image.Progress.
func (p *progress) tell(s image.Step) {
	changed := s.Phase != p.last.Phase
	p.last = s
	if p.terminal {
		if changed || time.Since(p.drawn) >= drawEvery {
			p.draw()
		}
		return
	}
	tenth := int64(0)
	if s.Total > 0 {
		tenth = s.Done * 10 / s.Total
	}
	if changed || tenth > p.told+1 {
		p.told = tenth
		fmt.Fprintf(p.out, "%s: %s\n", p.ref, line(s))
	}
}

// line says what is done now.
func line(s image.Step) string {
	text := string(s.Phase)
	if s.Total > 0 {
		text += fmt.Sprintf(" %s of %s", show.Bytes(s.Done), show.Bytes(s.Total))
	} else if s.Done > 0 {
		text += " " + show.Bytes(s.Done)
	}
	return text
}

func (p *progress) draw() {
	p.drawn = time.Now()
	text := fmt.Sprintf("%s: %s", p.ref, line(p.last))
	if p.last.Total > 0 {
		full := int(min(p.last.Done*barWidth/p.last.Total, barWidth))
		text += " [" + strings.Repeat("=", full) + strings.Repeat(" ", barWidth-full) + "]"
	}
	// What was longer before is wiped out.
	pad := max(p.width-len(text), 0)
	p.width = len(text)
	fmt.Fprintf(p.out, "\r%s%s", text, strings.Repeat(" ", pad))
}

// end wipes out the bar: what comes after it is the result.
func (p *progress) end() {
	if p.terminal && p.width > 0 {
		fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", p.width))
	}
}
