// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A profile that can't be translated refuses the container.
func TestContainerSeccompRefused(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]*specs.LinuxSeccomp{
		`linux.seccomp.defaultAction: "" is not an action`:              {},
		`linux.seccomp.defaultAction: SCMP_ACT_NOTIFY is not supported`: {DefaultAction: specs.ActNotify},
	} {
		if _, err := fromContainer(container(func(c *specs.Spec) { c.Linux.Seccomp = s })); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %q", err, want)
		}
	}
}
