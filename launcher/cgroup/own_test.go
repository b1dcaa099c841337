// SPDX-License-Identifier: Apache-2.0

package cgroup

import "testing"

func TestOwnPlace(t *testing.T) {
	t.Parallel()
	const id = "0123456789abcdef0123456789abcdef"
	for _, c := range []struct{ cgroups, name, want string }{
		{"5:pids:/\n3:cpu,cpuacct:/sandboxctl/web-" + id + "\n0::/\n", "web", "sandboxctl/web-" + id},
		{"0::/sandboxctl/web-" + id, "web", "sandboxctl/web-" + id},
		{"0::/sandboxctl/web-2-" + id, "web", ""},        // another sandbox's
		{"0::/sandboxctl/web-" + id[1:], "web", ""},      // not a uid
		{"0::/sandboxctl/web-" + id + "/sub", "web", ""}, // below it
		{"0::/machine/web-" + id, "web", ""},             // where its client wants it
		{"0::/x/sandboxctl/web-" + id, "web", ""},
		{"garbage\n\n:::", "web", ""},
		{"", "web", ""},
	} {
		if got := ownPlace(c.cgroups, c.name); string(got) != c.want {
			t.Errorf("%q: %q, expected %q", c.cgroups, got, c.want)
		}
	}
}
