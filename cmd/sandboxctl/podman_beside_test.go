// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// besideScript has podman and the daemon publish ports on one host, which is a network
// namespace, with another machine beside it. Each leaves the rules of the other as they are,
// in both orders of start, and when all rules of the host were removed.
const besideScript = bridgeBegin + `
export SANDBOXCTL_MANIFESTS=$WORK/m SANDBOXCTL_STATE=$WORK/s SANDBOXCTL_POLICY=$WORK/policy.yaml
ip netns add far && ip link add lan type veth peer name lan netns far && ip address add 192.0.2.1/24 dev lan && ip link set lan up || exit 1
ip -n far address add 192.0.2.2/24 dev lan && ip -n far link set lan up || exit 1
daemon=
end() {
	p rm -fa -t 0 >/dev/null
	$BIN/sandboxctl delete ours --wait --timeout 30s >/dev/null 2>&1
	[ -z "$daemon" ] || { kill $daemon; wait $daemon; }
}
trap end EXIT
trap 'exit 1' TERM
fail() { echo "$1:"; nft list ruleset; cat $WORK/daemon.log; exit 1; }
far() {
	for i in $(seq 100); do out=$(nsenter --net=/run/netns/far timeout 5 busybox nc -w 2 192.0.2.1 $1 </dev/null 2>&1) && [ "$out" = $2 ] && return; sleep 0.1; done
	fail "$3: port $1 says $out"
}
both() { far 8043 podman "$1"; far 8044 ours "$1"; }
theirs() { for t in nat filter; do iptables-save -t $t; ip6tables-save -t $t; done | sed '/^#/d; s/\[[0-9:]*\]//'; }
ours() { nft list table inet $(nft list tables | sed -n 's/^table inet \(sandboxctl.*\)/\1/p') | sed 's/packets [0-9]* bytes [0-9]*//' | awk '/^\tset open[0-9]/ {open=1} !open {print} /^\t}/ {open=0}'; } # connections come and go
web() { run -d --name web -p 8043:80 --rootfs $ROOTFS /bin/nc -ll -p 80 -e /bin/echo podman >/dev/null || fail "podman runs nothing"; }

web; far 8043 podman 'podman alone'
before=$(theirs)
$BIN/sandboxctl daemon --allow-mass-delete 2>>$WORK/daemon.log & daemon=$!
until $BIN/sandboxctl wait --for=ready ours --timeout 60s; do kill -0 $daemon || fail 'the daemon has ended'; sleep 0.2; done
both 'podman first'
[ "$(theirs)" = "$before" ] || fail 'a start of ours changes rules of podman'

mine=$(ours)
[ -n "$mine" ] || fail 'no rules of ours'
p rm -f -t 0 web >/dev/null; far 8044 ours 'ours alone'
[ "$(ours)" = "$mine" ] || fail 'the end of a container changes rules of ours'
web; both 'ours first'
[ "$(ours)" = "$mine" ] || fail 'a start of podman changes rules of ours'
before=$(theirs)
$BIN/sandboxctl restart ours --wait >/dev/null || fail 'no restart'
both 'ours again'
[ "$(theirs)" = "$before" ] || fail 'a restart of ours changes rules of podman'

# What belongs to it is repaired by each: the daemon by itself, podman when it is asked to.
nft flush ruleset
far 8044 ours 'after a flush'
p stop -t 0 web >/dev/null && p start web >/dev/null || fail 'podman starts nothing'
both 'after a flush'
before=$(theirs)
$BIN/sandboxctl delete ours --wait >/dev/null || fail 'no removal'
for i in $(seq 300); do nft list tables | grep -q sandboxctl || break; sleep 0.1; done
nft list tables | grep sandboxctl && fail 'a table of ours is left'
[ "$(theirs)" = "$before" ] || fail 'a removal of ours changes rules of podman'
far 8043 podman 'podman alone again'
echo side by side
`

func TestPodmanBeside(t *testing.T) {
	c := podmanOnBridge(t, "nft", "nsenter")
	must(t, os.Mkdir(filepath.Join(c.work, "m"), 0o755))
	must(t, os.Chmod(c.work, 0o755)) // manifests are not believed where others may write
	must(t, os.WriteFile(filepath.Join(c.work, "policy.yaml"), []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(c.work, "m", "ours.yaml"), []byte(`apiVersion: sandboxctl.dev/v1alpha1
kind: Sandbox
metadata: {name: ours}
spec:
  root: {host: {}}
  command: [busybox, nc, -ll, -p, "80", -e, /bin/echo, ours]
  terminationGracePeriod: 0s
  network: {ports: [{containerPort: 80, hostPort: 8044}]}
`), 0o644))
	must(t, os.WriteFile(filepath.Join(c.work, "beside.sh"), []byte(besideScript), 0o644))
	c.env = append(c.env, "BIN="+binDir)
	c.run([]step{{"all", "timeout 170 unshare --net --mount sh $WORK/beside.sh", 0, "side by side\n$"}})
}
