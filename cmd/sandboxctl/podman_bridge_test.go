// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// bridgeBegin is how scripts begin that run podman in namespaces of their own.
const bridgeBegin = `set -u
mount --make-rprivate /
for d in /var/lib/cni /run/netns; do mkdir -p $d && mount -t tmpfs tmpfs $d || exit 1; done
ip link set lo up
export CONTAINERS_CONF=$WORK/containers.conf
p() { podman --runtime $RUNTIME --root $WORK/root --runroot $WORK/run --tmpdir $WORK/tmp --storage-driver vfs --cgroup-manager cgroupfs --events-backend file --network-config-dir $WORK/cni "$@"; }
run() { p run --cgroup-parent /$GROUP "$@"; }
`

// bridgeScript is podman with its default network, a bridge of CNI, in namespaces
// of its own for the network and the mounts. After each way in which a container
// can end, no rule of NAT may be left.
const bridgeScript = bridgeBegin + `
fail() { echo "$1:"; iptables -t nat -S; ip6tables -t nat -S; p rm -fa -t 0; exit 1; }
rules() { { iptables -t nat -S; ip6tables -t nat -S; } | grep -c -- 'CNI-[0-9a-f]'; }
none() { [ "$(rules)" = 0 ] || fail "$1 leaves $(rules) rules"; }
in="--rootfs $ROOTFS"
run --rm $in /bin/busybox ip -4 -o addr show eth0 | grep -q 10.88.43. || fail "no address"
none 'the end of a container'
run --rm $in /bin/busybox ip -6 -o addr show eth0 | grep -q fd00:88:43:: || fail "no IPv6 address"
none 'the end of a container with IPv6'
run --rm $in /bin/sh -c 'exit 3'; none 'a failure'
run -d --name web $in /bin/sleep 1000 && [ "$(rules)" != 0 ] || fail 'a running container has none'
# The host reaches it, and what answers is the sandbox and not the kernel.
ip=$(p inspect --format '{{.NetworkSettings.IPAddress}}' web)
p exec -d web /bin/nc -l -p 7 -e /bin/cat
for i in $(seq 50); do out=$(echo hello | timeout 5 busybox nc -w 2 $ip 7) && [ "$out" = hello ] && break; sleep 0.1; done
[ "$out" = hello ] || fail "the host does not reach it: $out"
ip6tables -t nat -S | grep -q -- 'CNI-[0-9a-f]' || fail 'no IPv6 rule for a running container'
ip=$(p inspect --format '{{.NetworkSettings.GlobalIPv6Address}}' web)
p exec -d web /bin/nc -l -p 8 -e /bin/cat
for i in $(seq 50); do out=$(echo hello | timeout 5 busybox nc -w 2 $ip 8) && [ "$out" = hello ] && break; sleep 0.1; done
[ "$out" = hello ] || fail "the host does not reach it by IPv6, $ip: $out"
p rm -f -t 0 web; none 'rm -f'
run -d --name web -p 8043:80 $in /bin/sleep 1000 && p stop -t 0 web; none 'stop'
p start web && p kill web; p wait web; p rm web; none 'kill'
run -d --name web $in /bin/sleep 1000 && kill -9 $(p inspect --format '{{.State.Pid}}' web); p wait web; p rm web; none 'the death of its sentry'
run -d --name web $in /bin/sleep 1000 && p pause web && p rm -f -t 0 web; none 'rm -f of a paused one'
run --rm $in /nosuch; none 'a start that fails'
p rm -fa -t 0
echo nothing is left
`

// podman removes the network of a container before it deletes it, and its bridge
// plugin finds the rules to remove by the addresses of the interface: they must be
// there while the sandbox is, though the kernel does not answer for them.
func TestPodmanBridge(t *testing.T) {
	c := podmanOnBridge(t)
	must(t, os.WriteFile(filepath.Join(c.work, "bridge.sh"), []byte(bridgeScript), 0o644))
	c.run([]step{{"all", "unshare --net --mount sh $WORK/bridge.sh", 0, "nothing is left\n$"}})
}

// podmanOnBridge is podman with its default network.
func podmanOnBridge(t *testing.T, programs ...string) *client {
	t.Helper()
	c := newClient(t, append([]string{"podman", "conmon", "iptables", "unshare", "ip", "/usr/lib/cni/bridge"}, programs...)...)
	group := fmt.Sprintf("sbctl-bridge-%d", os.Getpid())
	must(t, os.MkdirAll(filepath.Join(c.work, "cni"), 0o755))
	must(t, os.Symlink("busybox", filepath.Join(c.work, "rootfs", "bin", "ip")))
	must(t, os.WriteFile(filepath.Join(c.work, "containers.conf"), []byte("[network]\nnetwork_backend = \"cni\"\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(c.work, "cni", "87-podman.conflist"), []byte(`{"cniVersion": "0.4.0", "name": "podman", "plugins": [
 {"type": "bridge", "bridge": "cni-podman0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
   "ranges": [[{"subnet": "10.88.43.0/24", "gateway": "10.88.43.1"}], [{"subnet": "fd00:88:43::/64", "gateway": "fd00:88:43::1"}]]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}, {"type": "firewall"}, {"type": "tuning"}]}`), 0o644))
	c.env = append(c.env, "GROUP="+group)
	t.Cleanup(func() {
		unmountBelow(t, c.work)
		removeGroups(t, group)
	})
	return c
}
