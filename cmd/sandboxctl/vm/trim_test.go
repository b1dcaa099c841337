// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"os"
	"strings"
	"testing"
)

// TestTrim runs containers while a real systemd works on the same hierarchies: it
// removes cgroups that it does not know while they are empty, which ours are until
// their first process. Both with the one hierarchy that Debian 12 boots with and
// with those of version 1. Not in the slice that CI has time for, where a test on
// the host, TestTrimmedCgroups, removes them by itself.
func TestTrim(t *testing.T) {
	requireImage(t)
	if os.Getenv("SCRIPTS") != "" {
		t.Skip("SCRIPTS is set: these tests, and no others")
	}
	for _, h := range []struct{ version, kernelArgs string }{
		{"v2", ""},
		{"hybrid", "systemd.unified_cgroup_hierarchy=0"},
	} {
		t.Run(h.version, func(t *testing.T) {
			t.Parallel()
			m := powerOnWith(t, h.kernelArgs)
			if out := m.run("sandboxctl doctor | grep '^OK  *cgroups '; :"); !strings.HasSuffix(out, " "+h.version) {
				t.Fatalf("the machine has cgroups %q, expected %s", out, h.version)
			}
			t.Log(m.runWithin(trim, settleDeadline*3))
		})
	}
}

// trim runs 15 containers, a third each in the place that we choose, in one of
// their client's, and in a slice. Meanwhile units start and stop and systemd reads
// everything anew, each of which has it trim its slices.
const trim = `set -eu
mkdir -p /srv/trim/rootfs/bin && cp /bin/busybox /srv/trim/rootfs/bin/
touch /run/trimming
( n=0; while [ -e /run/trimming ]; do
  systemctl daemon-reload || :
  systemd-run -q --wait -p CPUAccounting=yes -p MemoryMax=1G -p TasksMax=100 --slice=trim.slice true || :
  n=$((n+1)); echo $n >/run/trimmed
done ) >/dev/null 2>&1 &
trimmer=$!
trap 'rm -f /run/trimming; wait $trimmer' EXIT
failed=0
for i in 1 2 3 4 5; do for place in "" /trim-place/c$i trim.slice:oci:c$i; do
  cat >/srv/trim/config.json <<EOF
{"ociVersion":"1.0.2","root":{"path":"rootfs","readonly":true},"process":{"args":["/bin/busybox","true"],"cwd":"/","user":{"uid":0,"gid":0}},
"mounts":[{"destination":"/proc","type":"proc","source":"proc"}],
"linux":{"cgroupsPath":"$place","resources":{"pids":{"limit":500},"memory":{"limit":268435456}},"namespaces":[{"type":"network"},{"type":"pid"}]}}
EOF
  sandboxctl oci --root /run/trim-state run --bundle /srv/trim c$i </dev/null || { failed=$((failed+1)); echo "failed in '$place'"; }
done; done
echo "$failed of 15 failed beside $(cat /run/trimmed) rounds of systemd"
[ $failed = 0 ]
`
