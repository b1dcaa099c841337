// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
	"sandboxctl.dev/cmd/sandboxctl/world"
)

// A verb that does not exist fails whatever stands around it, and help of one that
// does is help.
func TestUnknownVerb(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]int{
		"nosuch": exit.Usage, "nosuch -h": exit.Usage, "-h nosuch": exit.Usage, "nosuch --help": exit.Usage, "--help nosuch": exit.Usage,
		"--state /x nosuch --help": exit.Usage, "--state=/x nosuch -h": exit.Usage, "help nosuch": exit.Usage, "nosuch -x -h": exit.Usage,
		"oci nosuch": exit.Failure, "oci nosuch -h": exit.Failure, "oci --root /x nosuch --help": exit.Failure, "oci -h nosuch": exit.Failure, "help oci nosuch": exit.Failure,
		"": exit.OK, "-h": exit.OK, "get -h": exit.OK, "get web -h": exit.OK, "--help": exit.OK, "help": exit.OK, "help get": exit.OK, "help get web": exit.OK, "help oci": exit.OK, "help oci run": exit.OK,
		"oci": exit.OK, "oci -h": exit.OK, "oci run -h": exit.OK, "oci exec c ls -h --help": ocicmd.ExitExec, "exec -h": exit.OK, "help help": exit.OK, "completion -h": exit.OK,
	} {
		var out, diag bytes.Buffer
		a := &app{Host: world.Host{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &diag}}
		code := a.run(t.Context(), strings.Fields(line))
		if code != want && !(want == ocicmd.ExitExec && code != exit.OK) {
			t.Errorf("%q ended with %d, expected %d: %s%s", line, code, want, diag.String(), out.String())
		}
		if strings.Contains(line, "nosuch") && want == exit.Usage && !strings.Contains(diag.String(), `"nosuch"`) && !strings.Contains(line, "-x") {
			t.Errorf("%q says %q", line, diag.String())
		}
		if want == exit.OK && !strings.Contains(out.String(), "Usage:") {
			t.Errorf("%q prints %q", line, out.String())
		}
	}
}
