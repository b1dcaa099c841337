// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
)

// Sandboxes that start at once with the same directories, in which what they mount on
// is missing, all start at the first attempt. One may find no mount point, and
// have it made by another before it makes it itself.
func TestStartTogether(t *testing.T) {
	requireHost(t)
	h := daemonHost(t)
	for name, spec := range map[string]string{
		"root":   "  overlay: none\n",
		"direct": "  overlay: none\n  fileAccess: direct\n",
		"volume": "  volumes:\n  - {name: a, hostPath: DIR/volume, mountPath: /data}\n  - {name: b, tmpfs: {}, mountPath: /data/a/b/c}\n  - {name: c, hostPath: DIR/other, mountPath: /data/d}\n",
		"file":   "  overlay: none\n  volumes:\n  - {name: a, hostPath: DIR/file, mountPath: /etc/app/config}\n",
	} {
		for round := range 2 {
			dir := filepath.Join(h.work, fmt.Sprint(name, round))
			for _, d := range []string{"root/bin", "volume", "other"} {
				h.must(os.MkdirAll(filepath.Join(dir, d), 0o755))
			}
			h.must(os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644))
			h.must(os.Link(filepath.Join(h.work, "rootfs/bin/busybox"), filepath.Join(dir, "root/bin/busybox")))
			names := make([]string, 6)
			for i := range names {
				names[i] = fmt.Sprintf("%s%d-%d", name, round, i)
				h.dropRoot(names[i], "{dir: "+dir+"/root}", strings.ReplaceAll(spec, "DIR", dir)+"  command: [/bin/busybox, sleep, '1000']\n  terminationGracePeriod: 0s\n")
			}
			for _, n := range names {
				h.until(n, func() bool {
					rec, _, _ := h.store.Get(n)
					if rec != nil && rec.Attempt > 1 {
						t.Fatalf("%s was started %d times", n, rec.Attempt)
					}
					return rec != nil && rec.Phase == actual.PhaseRunning
				})
			}
			h.clear()
		}
	}
}
