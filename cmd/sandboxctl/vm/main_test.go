// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// imageDir holds the kernel and the root filesystem that .ci/vm-image has made.
var imageDir = os.Getenv("SANDBOXCTL_VM")

// rootImage is the disk that machines boot from, with sandboxctl and its tests
// on it. It has no name any more.
var rootImage *os.File

func TestMain(m *testing.M) {
	flag.Parse()
	if imageDir != "" {
		var err error
		if rootImage, err = makeRoot(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// requireImage skips a test of the machine where nobody has made one: it needs
// root, qemu and minutes.
func requireImage(t *testing.T) {
	t.Helper()
	if imageDir == "" {
		t.Skip("SANDBOXCTL_VM names no image of a machine; `make vm` makes one and runs this")
	}
}

// makeRoot adds the programs, the sources and the compiled tests to the root
// filesystem and makes a disk of it.
func makeRoot() (_ *os.File, err error) {
	bin, err := filepath.Abs(os.Getenv("SANDBOXCTL_BIN"))
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "vm")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	repository, err := filepath.Abs("../../..")
	if err != nil {
		return nil, err
	}
	root := filepath.Join(work, "root")
	var b strings.Builder
	for _, p := range packages() {
		fmt.Fprintf(&b, "CGO_ENABLED=0 go test -c -ldflags='-s -w' -o %s/src/%s/ ./%s\n", root, p.dir, p.dir)
	}
	script := `set -euo pipefail
mkdir "$2"
tar -C "$2" --numeric-owner -xpf "$1/root.tar"
install -D -t "$2/usr/local/bin" "$3/sandboxctl" "$3/sandboxctl-gofer" "$3/sandboxctl-image" "$3/sandboxctl-sentry"
install -D -t "$2/src/bin" "$3/sandboxctl" "$3/sandboxctl-gofer" "$3/sandboxctl-image" "$3/sandboxctl-sentry"
{ echo examples; find . -name testdata -not -path './bin/*'; } | tar -c -T - | tar -x -C "$2/src"
` + b.String() + `
truncate -s 2G "$2.img"
mkfs.ext4 -q -F -d "$2" -E lazy_itable_init=0,lazy_journal_init=0 "$2.img"
`
	cmd := exec.Command("bash", "-c", script, "bash", imageDir, root, bin)
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make the root disk: %w\n%s", err, out)
	}
	return os.Open(root + ".img")
}

// number is a number of the environment: CUTS=50 make powercut.
func number(t *testing.T, name string, standard int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return standard
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
