// SPDX-License-Identifier: Apache-2.0

// Package nesting says which volumes can't be mounted in others of the same sandbox. A
// directory can be mounted where there is nothing: the sandbox makes one of its own. One
// file can only be mounted on a file, and nobody makes one in a volume whose files are those
// that the manifest names: such a sandbox would fail at each start.
package nesting

import (
	"fmt"
	"iter"
	"path"
	"strings"

	"sandboxctl.dev/desired/yamldoc"
)

// Shape is what a volume is, as seen in the sandbox.
type Shape int

// The shapes.
const (
	Unknown Shape = iota // only the host knows
	Directory
	File
)

// Volume is what a manifest says of one volume.
type Volume struct {
	Name  string
	At    string // its mountPath
	Shape Shape
	// Named says that Files are all that is in the volume, and that nobody adds to them. Of
	// the volume the file or directory In is mounted, "" for all of it.
	Named bool
	Files []string
	In    string
}

// Problems are what is wrong with volumes, by their index.
func Problems(volumes []Volume) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for i := range volumes {
			if why := problem(volumes, i); why != "" && !yield(i, why) {
				return
			}
		}
	}
}

// problem says why a volume can't be mounted where it is to be, "" if it can, or if that
// depends on the host.
func problem(volumes []Volume, i int) string {
	v := &volumes[i]
	on := around(volumes, v.At)
	switch {
	case on == nil:
		return ""
	case on.Shape == File:
		return fmt.Sprintf("it is below %s, where volume %q mounts one file; choose another place", yamldoc.Clip(on.At), on.Name)
	case !on.Named:
		return ""
	}
	at := path.Join(on.In, strings.TrimPrefix(v.At, on.At+"/"))
	shape, file := look(on.Files, at)
	switch {
	case file != "":
		return fmt.Sprintf("%q is a file of volume %q, and nothing can be mounted below it; choose another place", yamldoc.Clip(file), on.Name)
	case shape == File && v.Shape == Directory:
		return fmt.Sprintf("%q is a file of volume %q, and a directory can't be mounted on it; choose another place, or take the file out of that volume", yamldoc.Clip(at), on.Name)
	case shape == Directory && v.Shape == File:
		return fmt.Sprintf("%q is a directory of volume %q, and one file can't be mounted on it; choose another place", yamldoc.Clip(at), on.Name)
	case shape == Unknown && v.Shape == File:
		return fmt.Sprintf("volume %q is read-only and has no file %q, on which one file could be mounted; add that file to it, or choose another place", on.Name, yamldoc.Clip(at))
	}
	return ""
}

// around is the volume that a place is in, nil if it is in none: of several the innermost.
func around(volumes []Volume, at string) (found *Volume) {
	for i := range volumes {
		if u := &volumes[i]; u.At != "" && strings.HasPrefix(at, u.At+"/") && (found == nil || len(u.At) > len(found.At)) {
			found = u
		}
	}
	return found
}

// look returns what there is of a name among files, Unknown if there is nothing. file is one
// that is in the way.
func look(files []string, name string) (shape Shape, file string) {
	for _, f := range files {
		switch {
		case f == name:
			return File, ""
		case strings.HasPrefix(name, f+"/"):
			return Unknown, f
		case strings.HasPrefix(f, name+"/"):
			shape = Directory
		}
	}
	return shape, ""
}
