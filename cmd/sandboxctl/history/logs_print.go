// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bufio"
	"bytes"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/gofer/sandboxlog"
)

// logPrinter prints entries, the last few or all.
type logPrinter struct {
	out        *bufio.Writer
	timestamps bool
	terminal   bool
	since      time.Time
	ring       []sandboxlog.Entry
	buffered   int  // whole lines in ring
	partial    bool // the line is not at its end
	stream     sandboxlog.Stream
	coloured   bool // something in the line may be in force beyond it
}

// keep returns a function that holds back all but the last tail lines until
// flush; a negative tail prints at once.
func (p *logPrinter) keep(tail int) func(sandboxlog.Entry) error {
	if tail < 0 {
		return p.print
	}
	return func(e sandboxlog.Entry) error {
		if tail == 0 || e.At.Before(p.since) {
			return nil
		}
		e.Text = append([]byte(nil), e.Text...)
		p.ring = append(p.ring, e)
		lines := p.buffered + 1 // with the one that e ends or is in
		if e.Full {
			p.buffered++
		}
		if lines > tail {
			// The oldest line, with all of its parts.
			first := slices.IndexFunc(p.ring, func(e sandboxlog.Entry) bool { return e.Full })
			p.ring = p.ring[first+1:]
			p.buffered--
		}
		return nil
	}
}

func (p *logPrinter) flush() error {
	for _, e := range p.ring {
		if err := p.print(e); err != nil {
			return err
		}
	}
	p.ring, p.buffered = nil, 0
	p.plain()
	return p.out.Flush()
}

func (p *logPrinter) print(e sandboxlog.Entry) error {
	if e.At.Before(p.since) {
		return nil
	}
	if p.partial && e.Stream != p.stream {
		// The other stream's unfinished line is not this one's beginning.
		p.plain()
		p.out.WriteByte('\n')
		p.partial = false
	}
	p.stream = e.Stream
	if p.timestamps && !p.partial {
		p.out.WriteString(e.At.Format(sandboxlog.TimeFormat))
		p.out.WriteByte(' ')
	}
	if p.terminal {
		text := show.CleanLine(string(e.Text))
		p.coloured = p.coloured || strings.Contains(text, "\x1b[")
		p.out.WriteString(text)
	} else {
		p.out.Write(e.Text)
	}
	p.partial = !e.Full
	if !e.Full {
		return nil
	}
	p.plain()
	return p.out.WriteByte('\n')
}

// plain ends the colours of a line: one that conceals must not conceal what
// comes after it.
func (p *logPrinter) plain() {
	if p.coloured {
		p.out.WriteString("\x1b[0m")
		p.coloured = false
	}
}

// maxPrefixed is how much of a line without an end is kept until it is printed.
const maxPrefixed = 64 << 10

// prefixWriter writes whole lines, each behind the prefix. Several of them can
// share an output: lines are never mixed.
type prefixWriter struct {
	mu     *sync.Mutex
	w      io.Writer
	prefix string
	rest   []byte // of a line that has not ended
}

func (p *prefixWriter) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	var out []byte
	for {
		end := bytes.IndexByte(p.rest, '\n') + 1
		if end == 0 && len(p.rest) < maxPrefixed {
			break
		}
		line := p.rest
		if end > 0 {
			line = p.rest[:end]
		}
		out = append(append(out, p.prefix...), line...)
		if end == 0 {
			out = append(out, '\n')
		}
		p.rest = p.rest[len(line):]
	}
	if len(out) == 0 {
		return len(b), nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.w.Write(out)
	return len(b), err
}

// Close prints what is left as a line. An error to write was told by Write.
func (p *prefixWriter) Close() {
	if len(p.rest) > 0 {
		_, _ = p.Write([]byte{'\n'})
	}
}
