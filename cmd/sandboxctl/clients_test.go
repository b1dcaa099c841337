// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/cmd/sandboxctl/ocicmd"
	"sandboxctl.dev/launcher/proc/proctest"
)

// Real clients drive the OCI runtime, operation by operation, as their users
// do. docs/reference/oci.md lists what they do here.

// step is one operation of a client: a shell command, its exit code, and what
// it prints.
type step struct {
	name, script string
	code         int
	want         string // regexp on standard output and error
}

// client is where a client's operations run.
type client struct {
	t    *testing.T
	work string
	env  []string
}

func newClient(t *testing.T, programs ...string) *client {
	t.Helper()
	requireHost(t)
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			hosttest.Lacks(t, "%v; `make setup` installs it", err)
		}
	}
	c := &client{t: t, work: t.TempDir()}
	must(t, os.Mkdir(filepath.Join(c.work, "bin"), 0o755))
	// A client that runs another one of its programs does not hand all flags on,
	// so that the state directory must not depend on one.
	runtime := fmt.Sprintf("#!/bin/sh\nexec %s/sandboxctl oci --root %s/oci \"$@\"\n", binDir, c.work)
	must(t, proctest.WriteProgram(filepath.Join(c.work, "bin", ocicmd.Name), []byte(runtime), 0o755))
	root := filepath.Join(c.work, "rootfs")
	for _, d := range []string{"bin", "dev", "etc", "proc", "sys", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	busybox, err := exec.LookPath("busybox")
	must(t, err)
	b, err := os.ReadFile(busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "bin", "busybox"), b, 0o755))
	for name := range strings.FieldsSeq("cat echo free hostname id ls mount nc ps pwd sh sleep stat test touch tty true wget") {
		must(t, os.Symlink("busybox", filepath.Join(root, "bin", name)))
	}
	c.env = append(os.Environ(), "PATH="+filepath.Join(c.work, "bin")+":"+os.Getenv("PATH"), "WORK="+c.work, "ROOTFS="+root, "RUNTIME="+filepath.Join(c.work, "bin", ocicmd.Name))
	t.Cleanup(c.nothingLeft)
	return c
}

// sh runs a shell command to its end.
func (c *client) sh(script string) (out string, code int) {
	c.t.Helper()
	file, err := os.CreateTemp(c.work, "out-")
	must(c.t, err)
	defer os.Remove(file.Name())
	defer file.Close()
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir, cmd.Env = c.work, c.env
	// A file: what a client leaves in the background may hold a pipe open.
	cmd.Stdout, cmd.Stderr = file, file
	must(c.t, cmd.Start())
	timer := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait()
	timer.Stop()
	b, rerr := os.ReadFile(file.Name())
	must(c.t, rerr)
	if err != nil && cmd.ProcessState.ExitCode() < 0 {
		c.t.Errorf("%s: %v\n%s", script, err, b)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

func (c *client) run(steps []step) {
	for i, s := range steps {
		ok := c.t.Run(fmt.Sprintf("%02d %s", i+1, s.name), func(t *testing.T) {
			out, code := c.sh(s.script)
			if code != s.code || !regexp.MustCompile(s.want).MatchString(out) {
				t.Errorf("%s\nexit code %d, expected %d, and output that matches %q:\n%s", s.script, code, s.code, s.want, out)
			}
		})
		if !ok {
			return // the others stand on it
		}
	}
}

// nothingLeft fails the test if a process or a mount of it is there after its
// containers have been removed.
func (c *client) nothingLeft() {
	deadline := time.Now().Add(10 * time.Second)
	for {
		left := c.left()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			c.t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *client) left() (out []string) {
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(c.t, err)
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err == nil && strings.Contains(string(b), c.work) {
			out = append(out, p+": "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(c.t, err)
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, c.work) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// removeGroups removes what a client leaves of its own cgroups: directories
// without a process.
func removeGroups(t *testing.T, name string) {
	t.Helper()
	roots, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
	must(t, err)
	for _, root := range append(roots, "/sys/fs/cgroup/"+name) {
		var dirs []string
		_ = filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, p)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			// podman does not wait for the end of its conmon, which is in there too.
			err := unix.Rmdir(dir)
			for end := time.Now().Add(30 * time.Second); errors.Is(err, unix.EBUSY) && time.Now().Before(end); err = unix.Rmdir(dir) {
				time.Sleep(10 * time.Millisecond)
			}
			if err != nil {
				t.Errorf("cgroup %s is left: %v", dir, err)
			}
		}
	}
}

func TestPodman(t *testing.T) {
	t.Parallel() // with scripts; TestPodmanBridge would share podman's locks with it
	c := newClient(t, "podman", "conmon")
	group := fmt.Sprintf("sbctl-podman-%d", os.Getpid())
	name := fmt.Sprintf("sbctl-%d-pod", os.Getpid())
	outerName := fmt.Sprintf("sbctl-%d-podout", os.Getpid())
	wrapper := "#!/bin/sh\nexec podman --runtime $RUNTIME --root $WORK/root --runroot $WORK/run --tmpdir $WORK/tmp --storage-driver vfs " +
		"--cgroup-manager cgroupfs --events-backend file \"$@\"\n"
	must(t, proctest.WriteProgram(filepath.Join(c.work, "bin", "p"), []byte(wrapper), 0o755))
	// Network and cgroup for all of them, unless said otherwise.
	pr := "#!/bin/sh\nverb=$1; shift; exec p $verb --network ${NET:-none} --cgroup-parent /" + group + " \"$@\"\n"
	must(t, proctest.WriteProgram(filepath.Join(c.work, "bin", "pr"), []byte(pr), 0o755))
	t.Cleanup(func() {
		if out, code := c.sh("p rm -fa -t 0; p umount -a"); code != 0 {
			t.Errorf("remove containers: %d: %s", code, out)
		}
		unmountBelow(t, c.work)
		removeGroups(t, group)
	})
	outer := namedNetns(t, outerName)
	inner := namedNetns(t, name)
	wireUp(t, outer, inner, "/run/netns/"+name)

	c.run([]step{
		{"import", "tar -C $ROOTFS -c . | p import - localhost/bb:1", 0, ""},
		{"images", "p images --format '{{.Repository}}:{{.Tag}}'", 0, `localhost/bb:1`},
		{"run --rootfs", "pr run --rm --rootfs $ROOTFS /bin/cat /proc/version", 0, `gvisor`},
		{"run --rm image", "pr run --rm bb:1 echo hello", 0, `^hello\n$`},
		{"exit code", "pr run --rm bb:1 sh -c 'exit 3'", 3, ""},
		{"command not found", "pr run --rm bb:1 /nosuch", 127, "not found"},
		{"stdin", "echo from here | pr run --rm -i bb:1 cat", 0, "^from here\n$"},
		{"env, workdir, user", "pr run --rm -e A=b -w /tmp --user 7:8 bb:1 sh -c 'pwd; echo $A; id -u; id -g'", 0, "^/tmp\nb\n7\n8\n$"},
		{"hostname", "pr run --rm --hostname box bb:1 hostname", 0, "^box\n$"},
		{"terminal", "pr run --rm -t bb:1 sh -c 'test -t 0 && test -t 1 && echo yes'", 0, "^yes\r\n$"},
		{"read-only", "pr run --rm --read-only bb:1 touch /x", 1, "Read-only file system"},
		{"tmpfs", "pr run --rm --read-only --tmpfs /scratch bb:1 sh -c 'touch /scratch/x && ls /scratch'", 0, "^x\n$"},
		{"volume", "mkdir vol && pr run --rm -v $WORK/vol:/vol bb:1 sh -c 'echo kept > /vol/f' && cat vol/f", 0, "^kept\n$"},
		{"read-only volume", "pr run --rm -v $WORK/vol:/vol:ro bb:1 touch /vol/g", 1, "Read-only file system"},
		{"named volume", "p volume create v1 && pr run --rm -v v1:/v bb:1 touch /v/x && pr run --rm -v v1:/v bb:1 ls /v && p volume rm v1", 0, "\nx\n"},
		{"capabilities", "pr run --rm --cap-drop all bb:1 sh -c 'cat /proc/self/status' | grep CapEff", 0, "0000000000000000"},
		{"memory limit", "pr run --rm --memory 128m bb:1 sh -c 'free -m | head -n 2'", 0, `Mem: +128 `},
		{"id mappings", "pr run --rm --uidmap 0:100000:5000 --gidmap 0:100000:5000 bb:1 stat -c '%u %g' /bin/busybox", 0, "^0 0\n$"},
		{"network namespace", "NET=ns:/run/netns/" + name + " pr run --rm bb:1 sh -c 'busybox ip -4 -o addr show eth0'", 0, `10\.99\.7\.2/24`},
		{"info", "p info --format '{{.Host.OCIRuntime.Version}}'", 0, "sandboxctl-oci version "},
		{"another user", "pr run --rm --user 7:8 -v $WORK/vol:/vol bb:1 sh -c 'echo x > /vol/f'", 1, "Permission denied"},
		{"privileged", "pr run --rm --privileged bb:1 sh -c 'cat /proc/version; cat /proc/self/status' | grep CapEff", 0, "000001ff"},
		{"ulimit", "pr run --rm --ulimit nofile=77:77 bb:1 sh -c 'ulimit -n'", 0, "^77\n$"},
		{"run -d", "pr run -d --name web bb:1 sh -c 'echo ready; trap \"exit 5\" TERM; while true; do sleep 0.1; done'", 0, "^[0-9a-f]{64}\n$"},
		{"ps", "p ps --format '{{.Names}} {{.Status}}'", 0, "^web Up "},
		{"logs", "for i in 1 2 3 4 5 6 7 8 9; do p logs web | grep ready && exit; sleep 0.2; done; exit 1", 0, "^ready\n$"},
		{"exec", "p exec web cat /proc/version", 0, "gvisor"},
		{"exec exit code", "p exec web sh -c 'exit 7'", 7, ""},
		{"exec of nothing", "p exec web /nosuch", 127, "no such file"},
		{"exec -e -w -u", "p exec -e A=b -w /bin -u 9:9 web sh -c 'echo $A; pwd; id -u'", 0, "^b\n/bin\n9\n$"},
		{"exec -i", "echo in | p exec -i web cat", 0, "^in\n$"},
		{"exec -t", "p exec -t web sh -c 'test -t 0 && test -t 1 && echo yes'", 0, "^yes\r\n$"},
		{"exec -d", "p exec -d web touch /tmp/detached; for i in 1 2 3 4 5 6 7 8 9; do p exec web test -e /tmp/detached && exit; sleep 0.2; done; exit 1", 0, ""},
		{"top", "p top web -o pid,comm", 0, `PID +COMM.*\n +1 +sh`},
		{"stats", "p stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDs}}' web", 0, `^web [1-9][0-9.]*MB / .* [1-9]`},
		{"inspect", "p inspect --format '{{.State.Status}} {{.OCIRuntime}} {{.State.Pid}}' web", 0, "^running .*sandboxctl-oci [1-9]"},
		{"update", "p update --memory 256m web && p inspect --format '{{.Name}}' web", 0, "web"},
		{"write", "p exec web sh -c 'echo kept > /f' && p exec web cat /f", 0, "^kept\n$"},
		{"pause", "p pause web && p ps --format '{{.Names}} {{.Status}}' --filter status=paused", 0, "web Paused"},
		{"unpause", "p unpause web && p exec web echo awake", 0, "awake"},
		{"commit", "p commit -q web localhost/bb:2 && pr run --rm bb:2 cat /f", 0, "kept\n$"},
		{"stop", "p stop -t 10 web && p inspect --format '{{.State.ExitCode}}' web", 0, "\n5\n$"},
		{"start", "p start web && p exec web echo again", 0, "again"},
		{"restart", "p restart -t 0 web && p exec web echo and again", 0, "and again"},
		{"kill", "p kill -s KILL web && p wait web", 0, "\n137\n$"},
		{"rm", "p rm web && p ps -a --format '{{.Names}}'", 0, "^[^\n]*\n$"},
		{"rm -f", "pr run -d --name f bb:1 sleep 1000 && p rm -f -t 0 f && p ps -aq", 0, "^[0-9a-f]{64}\n[^\n]*\n$"},
		{"rm -f of a paused one", "pr run -d --name q bb:1 sleep 1000 && p pause q && p rm -f -t 0 q && p ps -aq", 0, "^[0-9a-f]{64}\n[^\n]*\n[^\n]*\n$"},
		{"attach", "pr run -d -i --name t bb:1 cat && (echo typed; sleep 1) | p attach t; p rm -f -t 0 t", 0, "\ntyped\n"},
		{"create, cp and start", "echo copied > f && pr create --name c bb:1 cat /g && p cp f c:/g && p start -a c && p cp c:/g - | tar -xO && p rm c", 0, "\ncopied\ncopied\n"},
		{"wait", "pr run -d --name w bb:1 sh -c 'sleep 0.3; exit 4' && p wait w && p rm w", 0, "\n4\n"},
	})
}

// unmountBelow takes away what a client has left mounted.
func unmountBelow(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], dir+"/") {
			if err := unix.Unmount(f[4], unix.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", f[4], err)
			}
		}
	}
}

func TestContainerd(t *testing.T) {
	t.Parallel()
	c := newClient(t, "containerd", "ctr", "containerd-shim-runc-v2")
	ns := fmt.Sprintf("sbctl%d", os.Getpid())
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n"+
		"[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n", c.work+"/root", c.work+"/state", c.work+"/c.sock", c.work+"/t.sock")
	must(t, os.WriteFile(filepath.Join(c.work, "config.toml"), []byte(config), 0o644))
	log, err := os.Create(filepath.Join(c.work, "log"))
	must(t, err)
	defer log.Close()
	daemon := exec.Command("containerd", "-c", filepath.Join(c.work, "config.toml"))
	daemon.Env, daemon.Stdout, daemon.Stderr = c.env, log, log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM}
	must(t, daemon.Start())
	wrapper := "#!/bin/sh\nexec ctr -a $WORK/c.sock -n " + ns + " \"$@\"\n"
	must(t, proctest.WriteProgram(filepath.Join(c.work, "bin", "c"), []byte(wrapper), 0o755))
	run := "#!/bin/sh\nexec c run --runtime io.containerd.runc.v2 --runc-binary $RUNTIME --runc-root $WORK/oci --snapshotter native --cgroup /" + ns + "/$$ \"$@\"\n"
	must(t, proctest.WriteProgram(filepath.Join(c.work, "bin", "cr"), []byte(run), 0o755))
	t.Cleanup(func() {
		c.sh("for t in $(c task ls -q); do c task kill -s KILL $t; c task rm -f $t; done; for x in $(c container ls -q); do c container rm $x; done; for i in $(c image ls -q); do c image rm $i; done")
		_ = daemon.Process.Signal(unix.SIGTERM)
		if err := daemon.Wait(); err != nil {
			t.Errorf("containerd: %v", err)
		}
		unmountBelow(t, c.work)
		removeGroups(t, ns)
	})
	c.run([]step{
		{"daemon", "for i in $(seq 100); do c version >/dev/null 2>&1 && exit; sleep 0.1; done; cat log; exit 1", 0, ""},
		{"image import", "sh " + c.archive() + " && c image import --snapshotter native image.tar", 0, "docker.io/library/bb:1"},
		{"image ls", "c image ls -q", 0, "^docker.io/library/bb:1\n$"},
		{"run --rm", "cr --rm docker.io/library/bb:1 a /bin/cat /proc/version", 0, "gvisor"},
		{"exit code", "cr --rm docker.io/library/bb:1 b /bin/sh -c 'exit 3'", 3, ""},
		{"env, cwd", "cr --rm --env A=b --cwd /tmp docker.io/library/bb:1 e /bin/sh -c 'echo $A; pwd'", 0, "^b\n/tmp\n$"},
		{"read-only", "cr --rm --read-only docker.io/library/bb:1 ro /bin/touch /x", 1, "Read-only file system"},
		{"memory limit", "cr --rm --memory-limit 134217728 docker.io/library/bb:1 ml /bin/sh -c 'free -m | head -n 2'", 0, `Mem: +128 `},
		{"mount", "mkdir m && echo host > m/f && cr --rm --mount type=bind,src=$WORK/m,dst=/m,options=rbind:ro docker.io/library/bb:1 m /bin/cat /m/f", 0, "^host\n$"},
		{"run --rootfs", "cr --rm --rootfs $ROOTFS r /bin/echo rooted", 0, "rooted"},
		{"run -t", "script -qec 'cr --rm -t docker.io/library/bb:1 t /bin/sh -c \"test -t 0 && test -t 2 && echo yes\"' /dev/null </dev/null", 0, "yes"},
		{"run -d", "cr -d docker.io/library/bb:1 d /bin/sleep 1000", 0, ""},
		{"container ls", "c container ls", 0, `d +docker.io/library/bb:1 +io.containerd.runc.v2`},
		{"task ls", "c task ls", 0, `d +[1-9][0-9]* +RUNNING`},
		{"task exec", "c task exec --exec-id x1 d /bin/echo inside", 0, "^inside\n$"},
		{"task exec exit code", "c task exec --exec-id x2 d /bin/sh -c 'exit 9'", 9, ""},
		{"task ps", "c task ps d", 0, `PID`},
		{"task metrics", "c task metrics d", 0, `memory.usage_in_bytes +[1-9]|memory.usage +[1-9]`},
		{"task exec --user", "c task exec --exec-id x4 --user 7:7 d /bin/sh -c 'cat /proc/self/status' | grep CapEff", 0, "0000000000000000"},
		{"task checkpoint", "c task checkpoint --image-path $WORK/image.d d && ls image.d", 0, "checkpoint.json"},
		{"task pause", "c task pause d && c task ls", 0, "PAUSED"},
		{"task resume", "c task resume d && c task exec --exec-id x3 d /bin/echo awake", 0, "awake"},
		{"task kill", "c task kill -s KILL d; for i in $(seq 50); do c task ls | grep STOPPED && exit; sleep 0.1; done; exit 1", 0, "STOPPED"},
		{"task delete", "c task delete d", 0, "non-zero exit code 137"},
		{"container rm", "c container rm d && c container ls -q", 0, "^$"},
	})
}

// archive writes a script that makes image.tar, a docker archive of the root
// filesystem, without another tool.
func (c *client) archive() string {
	path := filepath.Join(c.work, "archive.sh")
	must(c.t, os.WriteFile(path, []byte(`set -e
mkdir image && tar -C $ROOTFS -cf image/layer.tar .
diff=$(sha256sum image/layer.tar | cut -d' ' -f1)
echo '{"architecture":"'$(dpkg --print-architecture)'","os":"linux","config":{"Cmd":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:'$diff'"]}}' > image/config.json
echo '[{"Config":"config.json","RepoTags":["bb:1"],"Layers":["layer.tar"]}]' > image/manifest.json
tar -C image -cf image.tar manifest.json config.json layer.tar
`), 0o644))
	return path
}
