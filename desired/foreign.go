// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"slices"
	"strings"

	"sandboxctl.dev/desired/foreign"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/yamldoc"
)

// program is what tells documents of this program from those of others.
var program = foreign.Program{APIVersion: APIVersion, Kind: Kind, Kinds: []string{Kind, ClaimKind, objects.Pool, PolicyKind}, ValidName: ValidName}

// IgnoreFile says, in the syntax of gitignore, which files of its directory and those
// below are not manifests.
const IgnoreFile = ".sandboxctlignore"

// ForeignWarning tells of the documents of a file that are for other programs, nil if
// there are none.
func ForeignWarning(file string, docs []Document) *Warning {
	var what []string
	w := &Warning{Position: Position{File: file}}
	for i := range docs {
		if d := &docs[i]; d.Foreign != "" {
			if len(what) == 0 {
				w.Position = d.Position
			}
			if !slices.Contains(what, d.Foreign) {
				what = append(what, d.Foreign)
			}
			if d.Name != "" {
				w.Names = append(w.Names, d.Name)
			}
		}
	}
	if len(what) == 0 {
		return nil
	}
	if len(what) > 3 {
		what = append(what[:3], "…")
	}
	w.Message = fmt.Sprintf("ignored: not for sandboxctl (%s); name it in %s to hide this", yamldoc.Shown(strings.Join(what, ", ")), IgnoreFile)
	return w
}
