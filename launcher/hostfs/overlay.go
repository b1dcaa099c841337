// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// maxOverlays is how deep overlays of overlays are looked into. The kernel stacks
// two.
const maxOverlays = 8

// layers are the locations that the file or directory at p of an overlay has in
// its layers, and its working directories, where files are before they are moved
// into place. A layer that can't be found is left out: it is relative to where
// somebody mounted from, or in another mount namespace.
func (t *Table) layers(m *mountinfo.Info, p string, depth int) (out []location) {
	if m.FSType != "overlay" || depth == 0 {
		return nil
	}
	lower, work := overlayDirs(m.VFSOptions)
	for _, dir := range lower {
		out = append(out, t.layer(dir, p, depth)...)
	}
	for _, dir := range work {
		out = append(out, t.layer(dir, "/", depth)...)
	}
	return out
}

func (t *Table) layer(dir, p string, depth int) []location {
	if !path.IsAbs(dir) {
		return nil
	}
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	s, err := SpotOf(f)
	if err != nil {
		return nil
	}
	m, err := t.mountOf(s)
	if err != nil {
		return nil
	}
	l := inside(m, s.Path)
	l.path = path.Join(l.path, p)
	return append(t.layers(m, l.path, depth-1), l)
}

// overlayDirs are the directories named by the options of an overlay: those with
// its files, and those it works in.
func overlayDirs(options string) (files, work []string) {
	for o := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(o, "=")
		value = unescapeOctal(value)
		switch name {
		case "lowerdir":
			for _, dir := range splitLayers(value) {
				if dir != "" { // "::" comes before layers that hold only data
					files = append(files, dir)
				}
			}
		case "lowerdir+", "datadir+", "upperdir":
			files = append(files, value)
		case "workdir":
			work = append(work, value)
		}
	}
	return files, work
}

// splitLayers splits a lowerdir at its colons; a backslash takes the next
// character as it is.
func splitLayers(s string) (out []string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == ':':
			out = append(out, b.String())
			b.Reset()
		default:
			b.WriteByte(s[i])
		}
	}
	return append(out, b.String())
}

// unescapeOctal undoes the \NNN of mountinfo.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
