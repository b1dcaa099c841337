// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var (
	shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	// inMachine are the pages whose commands change the whole host: the test in the
	// virtual machine runs them, see documents in vm/docs_test.go.
	inMachine = regexp.MustCompile(`"((?:guide|reference)/[a-z-]+\.md)"`)
)

// docsBlocks are the commands of each page that are to be run here.
func docsBlocks(t *testing.T) map[string][]string {
	t.Helper()
	vm, err := os.ReadFile("vm/docs_test.go")
	must(t, err)
	elsewhere := map[string]bool{}
	for _, m := range inMachine.FindAllStringSubmatch(string(vm), -1) {
		elsewhere[m[1]] = true
	}
	guide, err := filepath.Glob("../../docs/guide/*.md")
	must(t, err)
	reference, err := filepath.Glob("../../docs/reference/*.md")
	must(t, err)
	blocks := map[string][]string{}
	for _, p := range append(append(guide, reference...), "../../README.md") {
		text, err := os.ReadFile(p)
		must(t, err)
		name := strings.TrimPrefix(strings.TrimPrefix(p, "../../"), "docs/")
		for _, b := range shellBlock.FindAllStringSubmatch(string(text), -1) {
			// A host that is fresh is the machine's: .ci/vm.
			if !elsewhere[name] && !strings.Contains(b[1], "apt-get") {
				blocks[name] = append(blocks[name], b[1])
			}
		}
		if strings.HasPrefix(name, "guide/") && !shellBlock.Match(text) {
			t.Errorf("%s has no commands that can be tried", name)
		}
	}
	return blocks
}

// TestDocsBlocks runs the commands of the documentation as they are printed, at a
// terminal at which somebody types "exit", beside a daemon and in a checkout. Only
// directories of the host are others.
func TestDocsBlocks(t *testing.T) {
	requireHost(t)
	examples, err := filepath.Abs("../../examples")
	must(t, err)
	dir := t.TempDir()
	for page, blocks := range docsBlocks(t) {
		var script, files strings.Builder
		script.WriteString("exec bash prepare\ndaemon --allow-mass-delete\nexec bash ready\n")
		for i, b := range blocks {
			fmt.Fprintf(&script, "exec bash run block%d\n", i+1)
			fmt.Fprintf(&files, "-- block%d --\n%s", i+1, b)
		}
		fmt.Fprintf(&files, "-- prepare --\nset -eu\nmkdir -p srv backups\ncp -r %s examples\n", examples)
		files.WriteString(`for f in $(find examples -type f) block*; do sed -i "s,/srv/sandboxctl,$WORK/srv,g; s,/var/backups,$WORK/backups,g" "$f"; done
cp examples/policy.yaml policy.yaml
-- ready --
for i in $(seq 1200); do test -S "$S/client.sock" && exit; sleep 0.05; done
echo "there is no $S/client.sock" >&2
exit 1
-- run --
echo exit | script -qec "bash -euo pipefail $1" /dev/null
`)
		name := strings.NewReplacer("/", "_", ".md", "").Replace(page)
		must(t, os.WriteFile(filepath.Join(dir, name+".txtar"), []byte(script.String()+"\n"+files.String()), 0o600))
	}
	testscript.Run(t, testscript.Params{
		Dir: dir, Setup: setupScript, RequireExplicitExec: true, RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"daemon": cmdDaemon},
	})
}
