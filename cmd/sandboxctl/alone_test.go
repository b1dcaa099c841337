// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sandboxctl.dev/cmd/sandboxctl/world"
)

// A verb that is built alone does what it does among all others, its errors and its help
// included.
func TestVerbAlone(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	c.records("web", "db")
	must(t, os.WriteFile(filepath.Join(c.manifests, "web.yaml"), []byte(webManifest), 0o600))
	for _, verb := range []string{"get", "ls", "list", "exec", "logs", "ps", "wait", "version"} {
		if len((&app{}).alone([]string{verb})) != 1 {
			t.Errorf("%s is not built alone", verb)
		}
		for _, rest := range []string{
			"", "--help", "-h", "help", "web", "web --help", "nosuch", "--nonsense", "-o", "-o name", "-o json", "-o nonsense", "web -- true", "web --", "-- web",
			"--state", "--state /nonexistent", "--state= web", "--manifests /nonexistent", "--policy /nonexistent", "web --for=phase=Stopped --timeout 1ms", "--version", "-l a=b", "--tail 1 web",
		} {
			args := append([]string{verb}, strings.Fields(rest)...)
			if !strings.Contains(rest, "--state") {
				args = append([]string{verb, "--manifests", c.manifests, "--state", c.state}, args[1:]...)
			}
			if verb == "wait" && !strings.Contains(rest, "--timeout") {
				args = append([]string{verb, "--timeout", "1ms"}, args[1:]...)
			}
			run := func(whole bool) (code int, out, err string) {
				var stdout, stderr bytes.Buffer
				a := &app{Host: world.Host{Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr}}
				verbs := a.alone(args)
				if whole {
					verbs = nil
				}
				code = a.execute(t.Context(), a.rootCommand(verbs...), args)
				return code, stdout.String(), stderr.String()
			}
			code, out, err := run(false)
			wantCode, wantOut, wantErr := run(true)
			if code != wantCode || out != wantOut || err != wantErr {
				t.Errorf("%q: code %d\n%s%s\namong all others: code %d\n%s%s", args, code, out, err, wantCode, wantOut, wantErr)
			}
		}
	}
	for _, args := range [][]string{nil, {""}, {"-h"}, {"help", "get"}, {"--state", "x", "get"}, {"__complete", "get", ""}, {"geт"}, {"apply"}, {"oci", "exec"}} {
		if (&app{}).alone(args) != nil {
			t.Errorf("%q is one verb alone", args)
		}
	}
}

// TestVerbAloneCost holds that it is worth it.
func TestVerbAloneCost(t *testing.T) {
	a := &app{}
	whole := testing.AllocsPerRun(10, func() { a.rootCommand() })
	alone := testing.AllocsPerRun(10, func() { a.rootCommand(a.alone([]string{"get"})...) })
	if alone > whole/5 {
		t.Errorf("%v allocations for one verb, %v for all", alone, whole)
	}
}
