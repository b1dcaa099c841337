// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
)

// A verb that does not exist fails whatever stands around it, and help of one that
// does is help.
func TestUnknownVerb(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]int{
		"nosuch": exitUsage, "nosuch -h": exitUsage, "-h nosuch": exitUsage, "nosuch --help": exitUsage, "--help nosuch": exitUsage,
		"--state /x nosuch --help": exitUsage, "--state=/x nosuch -h": exitUsage, "help nosuch": exitUsage, "nosuch -x -h": exitUsage,
		"oci nosuch": exitFailure, "oci nosuch -h": exitFailure, "oci --root /x nosuch --help": exitFailure, "oci -h nosuch": exitFailure, "help oci nosuch": exitFailure,
		"": exitOK, "-h": exitOK, "get -h": exitOK, "get web -h": exitOK, "--help": exitOK, "help": exitOK, "help get": exitOK, "help get web": exitOK, "help oci": exitOK, "help oci run": exitOK,
		"oci": exitOK, "oci -h": exitOK, "oci run -h": exitOK, "oci exec c ls -h --help": exitExec, "exec -h": exitOK, "help help": exitOK, "completion -h": exitOK,
	} {
		var out, diag bytes.Buffer
		a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &diag}
		code := a.run(t.Context(), strings.Fields(line))
		if code != want && !(want == exitExec && code != exitOK) {
			t.Errorf("%q ended with %d, expected %d: %s%s", line, code, want, diag.String(), out.String())
		}
		if strings.Contains(line, "nosuch") && want == exitUsage && !strings.Contains(diag.String(), `"nosuch"`) && !strings.Contains(line, "-x") {
			t.Errorf("%q says %q", line, diag.String())
		}
		if want == exitOK && !strings.Contains(out.String(), "Usage:") {
			t.Errorf("%q prints %q", line, out.String())
		}
	}
}
