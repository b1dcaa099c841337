// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Control methods about a container beside the first one (runsc/boot/controller.go).
const (
	MethodCreateSubcontainer  = "containerManager.CreateSubcontainer"
	MethodStartSubcontainer   = "containerManager.StartSubcontainer"
	MethodDestroySubcontainer = "containerManager.DestroySubcontainer"
)

// CreateArgs is the argument of MethodCreateSubcontainer.
type CreateArgs struct{ CID string }

// StartArgs is the argument of MethodStartSubcontainer. Beside it travel stdin, stdout and
// stderr, the archive of what is laid over an image if there is one, and the connections to
// the gofer or the image of the root, root first.
type StartArgs struct {
	// Spec is the OCI spec.
	Spec json.RawMessage
	// Conf is the configuration that the sentry has told of its kernel.
	Conf                        json.RawMessage
	CID                         string
	GoferMountConfs             []MountConf
	IsRootfsUpperTarFilePresent bool
}

// MountConf is what is below and above a tree (runsc/specutils.GoferMountConf).
type MountConf struct {
	Lower byte   `json:"lower"`
	Upper byte   `json:"upper"`
	Size  string `json:"size,omitempty"`
}

// Layers of a tree, whose numbers are gVisor's.
var (
	lowers = []string{"none", "lisafs", "erofs"}
	uppers = []string{"none", "memory"}
)

// MountConfs reads what --gofer-mount-confs has: LOWER:UPPER[:size=SIZE] for each tree. Those
// that need a file on the disk are refused: a container beside the first one has none.
func MountConfs(flag string) ([]MountConf, error) {
	var out []MountConf
	for text := range strings.SplitSeq(flag, ",") {
		parts := strings.Split(text, ":")
		if len(parts) < 2 || len(parts) > 3 {
			return nil, fmt.Errorf("mount %q: expected LOWER:UPPER", text)
		}
		lower, upper := slices.Index(lowers, parts[0]), slices.Index(uppers, parts[1])
		if lower < 0 || upper < 0 {
			return nil, fmt.Errorf("mount %q: a container beside the first one can't have it", text)
		}
		c := MountConf{Lower: byte(lower), Upper: byte(upper)}
		if len(parts) == 3 {
			size, ok := strings.CutPrefix(parts[2], "size=")
			if !ok {
				return nil, fmt.Errorf("mount %q: expected a size", text)
			}
			c.Size = size
		}
		out = append(out, c)
	}
	return out, nil
}
