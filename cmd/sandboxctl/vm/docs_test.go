// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documents whose blocks of commands are run in the machine, in this order. The
// first sets up what the others need, the last takes it away. Those of all other
// pages change nothing outside of a scratch directory: TestDocsBlocks runs them.
var documents = []string{
	"guide/install.md", "guide/troubleshooting.md", "guide/network.md", "reference/oci.md",
	"guide/backup.md", "guide/upgrade.md", "guide/uninstall.md",
}

var (
	shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	undoLine   = regexp.MustCompile("(?m)^Undo it with `(.*?)`, then `(.*?)`")
)

// testDocs runs the commands of the documentation as they are printed, as root
// at a terminal in a checkout.
func testDocs(t *testing.T, m *machine) {
	for _, doc := range documents {
		text, err := os.ReadFile(filepath.Join("../../../docs", doc))
		must(t, err)
		blocks := shellBlock.FindAllStringSubmatch(string(text), -1)
		if len(blocks) == 0 {
			t.Errorf("docs/%s has no commands", doc)
		}
		for _, b := range blocks {
			runBlock(t, m, doc, b[1])
		}
		for _, undo := range undoLine.FindAllStringSubmatch(string(text), -1) {
			runBlock(t, m, doc, undo[1]+"\n"+undo[2])
		}
		if doc != documents[len(documents)-1] {
			m.clean(doc)
		}
	}
	// What the last document has removed.
	if out := m.run("ls -d /etc/sandboxctl /var/lib/sandboxctl /sys/fs/cgroup/sandboxctl 2>/dev/null; pgrep -a sandboxctl; :"); out != "" {
		t.Errorf("left after docs/%s: %s", documents[len(documents)-1], out)
	}
}

// runBlock runs commands at a terminal, at which somebody types "exit" if they ask
// for input.
func runBlock(t *testing.T, m *machine, doc, block string) {
	t.Helper()
	out, err := m.try(fmt.Sprintf("cat >/tmp/block <<'END OF BLOCK'\n%s\nEND OF BLOCK\ncd /src && echo exit | script -qec 'bash -euo pipefail /tmp/block' /dev/null", block), settleDeadline)
	if err != nil {
		t.Fatalf("%s\ndocs/%s:\n%s%v", m.explain(), doc, block, err)
	}
	t.Logf("docs/%s: %s\n%s", doc, strings.TrimSpace(block), out)
}
