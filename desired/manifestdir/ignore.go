// SPDX-License-Identifier: Apache-2.0

package manifestdir

import (
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/trustedfile"
)

// Limits of an ignore file: every pattern costs each name something.
const (
	MaxIgnoreBytes = 64 << 10
	maxPatterns    = 1000
)

// readIgnore takes the patterns of a directory into account, before what is in it is
// looked at. A file that can't be relied on is a problem: without it other files count,
// and with it others do not.
func (sc *scanner) readIgnore(rel string) {
	p := path.Join(rel, desired.IgnoreFile)
	if !sc.there(p) {
		return
	}
	text, err := sc.readSmall(p)
	switch {
	case errors.Is(err, trustedfile.ErrWriting):
		sc.unsure = true
		sc.d.incomplete(sc.snap, desired.ReasonUnsettled, "%s is being written", p)
		sc.d.lookAgain(time.Now().Add(sc.d.opts.Settle / 5))
		text = sc.d.ignores[p]
	case err != nil:
		sc.problem(p, "the file can't be read: %v", sc.linkHint(p, err))
		return
	case len(text) > MaxIgnoreBytes || strings.Count(text, "\n") > maxPatterns:
		sc.problem(p, "the file has more than %d bytes or %d lines", MaxIgnoreBytes, maxPatterns)
		return
	}
	sc.d.ignores[p] = text
	sc.rules = append(slices.Clip(sc.rules), ParseIgnore(rel, text)...)
}

// readSmall reads a file that counts only if it is root's and nobody else's.
func (sc *scanner) readSmall(p string) (string, error) {
	f, err := trustedfile.OpenBelow(sc.top, p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	b, err := trustedfile.Read(f, &st, sc.d.opts.Settle, MaxIgnoreBytes)
	return string(b), err
}

// ignored says whether the author does not want a name to be looked at. What is below
// an ignored directory is not asked for.
func (sc *scanner) ignored(p string, dir bool) bool { return sc.rules.Match(p, dir) }

// passedOver says whether the last look passed a directory over.
func (d *Dir) passedOver(p string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rules.Match(p, true)
}

// IgnoreRules are the patterns of all ignore files on the way, the last of which counts.
type IgnoreRules []ignoreRule

// ignoreRule is one pattern. One without a slash is about a name, at any depth.
type ignoreRule struct {
	dir     string // of its file
	name    bool
	pattern gitignore.Pattern
	include bool
}

// ParseIgnore reads the ignore file of a directory.
func ParseIgnore(dir, text string) IgnoreRules {
	var out IgnoreRules
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if trimmed := strings.TrimRight(line, " \t"); !strings.HasSuffix(trimmed, `\`) {
			line = trimmed // as git does, unless the space is quoted
		}
		if line == "" || line[0] == '#' || line == "!" || line == "/" {
			continue
		}
		// The library knows one of the two ways to negate a class.
		line = strings.ReplaceAll(line, "[!", "[^")
		out = append(out, ignoreRule{
			dir: dir, name: !strings.Contains(strings.TrimSuffix(line, "/"), "/"), include: line[0] == '!', pattern: gitignore.ParsePattern(line, nil),
		})
	}
	return out
}

// Match says whether a path is ignored that is in no directory that is.
func (rs IgnoreRules) Match(p string, dir bool) bool {
	for _, r := range slices.Backward(rs) {
		rel := p
		if r.dir != "" {
			below, ok := strings.CutPrefix(p, r.dir+"/")
			if !ok {
				continue
			}
			rel = below
		}
		if r.name {
			rel = path.Base(rel)
		}
		if r.pattern.Match(strings.Split(rel, "/"), dir) != gitignore.NoMatch {
			return !r.include
		}
	}
	return false
}
