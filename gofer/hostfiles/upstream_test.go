// SPDX-License-Identifier: Apache-2.0

package hostfiles

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// upstream is the file of gVisor's that this package is a copy of.
const upstream = "5793f2ecdd0807cfb70e9ea7b21d52c4156c9d5a41f2314a535ac04a729c7b60"

// What gVisor changes in its file server, this copy may need too.
func TestUpstream(t *testing.T) {
	t.Parallel()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "gvisor.dev/gvisor/runsc/fsgofer").Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(strings.TrimSpace(string(dir)), "lisafs.go")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	if got := hex.EncodeToString(sum[:]); got != upstream {
		t.Errorf("%s has changed since it was copied: take over what is new, and write %s here", file, got)
	}
}
