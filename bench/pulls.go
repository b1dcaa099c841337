// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// What images are pulled and imported beside.
const (
	skopeoName = "skopeo"
	tarName    = "tar"
)

// pulls has a large image in all forms that it is read from.
type pulls struct {
	*bench
	dir string
	// registry is the reference of the image in a registry on loopback, tree a tar of what
	// is in it, layout a directory with the image.
	registry, tree, layout string
	server                 *exec.Cmd
}

// pullsDisk is how many times the size of the image is needed of the disk.
const pullsDisk = 6

// pulls measures pulls and imports. The time of each ends when the disk has all: what
// sandboxctl has put into its store is synced, and what the others have written is too.
func (b *bench) pulls() (err error) {
	p := &pulls{bench: b, dir: filepath.Join(b.cfg.work, "pulls")}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.prepare(); err != nil {
		return err
	}
	pull := b.usageRows("pull", fmt.Sprintf("an image of %d MiB pulled from a registry on loopback and synced (skopeo: `copy` to a directory)", b.cfg.image), 1.2, skopeoName)
	tree := b.usageRows("import", "the tar of its tree imported and synced (tar: `-x`)", 1.7, tarName)
	tasks := []usageTask{
		{pull, sandboxctlName, func() (usage, error) { return p.ours("pull", "--quiet", p.registry) }},
		{tree, sandboxctlName, func() (usage, error) { return p.ours("import", p.tree, "bench") }},
	}
	if b.cfg.peers {
		tasks = append(tasks,
			usageTask{pull, skopeoName, func() (usage, error) {
				return p.peer("skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "docker://"+p.registry, "dir:"+p.out())
			}},
			usageTask{tree, tarName, func() (usage, error) { return p.peer("tar", "-xf", p.tree, "-C", p.out()) }})
	}
	for r := range b.cfg.bursts {
		rand.Shuffle(len(tasks), func(i, j int) { tasks[i], tasks[j] = tasks[j], tasks[i] })
		for _, t := range tasks {
			u, err := t.run()
			if err = errors.Join(err, b.ctx.Err()); err != nil {
				return fmt.Errorf("%s of %s: %w", t.rows.wall.ID, t.subject, err)
			}
			t.rows.add(t.subject, u)
		}
		b.progress("pulls: %d of %d rounds", r+1, b.cfg.bursts)
	}
	grown, err := p.ofDaemon()
	b.alone("pull-daemon-memory", "peak resident memory of the daemon during a pull, more than before", "MiB", 8).add(sandboxctlName, grown)
	return err
}

// out is a directory for what the others write.
func (p *pulls) out() string { return filepath.Join(p.dir, "out") }

// prepare makes the image, and starts a registry that has it.
func (p *pulls) prepare() error {
	for _, name := range []string{"skopeo", "docker-registry", "tar"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("pulls are measured with skopeo and docker-registry (.ci/setup test has them): %w", err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(p.cfg.work, &st); err != nil {
		return err
	}
	if free, need := int64(st.Bavail)*st.Bsize>>20, pullsDisk*int64(p.cfg.image); free < need {
		return fmt.Errorf("%s has %d MiB free, pulls of an image of %d MiB need %d; name another disk with TMPDIR, or measure a smaller image with -image", p.cfg.work, free, p.cfg.image, need)
	}
	p.tree, p.layout = filepath.Join(p.dir, "tree.tar"), filepath.Join(p.dir, "layout")
	if err := os.MkdirAll(p.layout, 0o755); err != nil {
		return err
	}
	p.progress("making an image of %d MiB", p.cfg.image)
	image, err := newBigImage(filepath.Join(p.cfg.work, "rootfs", "bin", "busybox"))
	if err == nil {
		err = image.write(p.cfg.image, p.layout, p.tree)
	}
	if err != nil {
		return err
	}
	host, err := p.serve()
	if err != nil {
		return err
	}
	p.registry = host + "/bench:1"
	_, err = timed(apart(exec.CommandContext(p.ctx, "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "oci:"+p.layout+":1", "docker://"+p.registry)))
	return err
}

// serve starts the registry.
func (p *pulls) serve() (host string, err error) {
	config := filepath.Join(p.dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: '127.0.0.1:0', secret: x}\n", filepath.Join(p.dir, "registry"))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return "", err
	}
	cmd := apart(exec.Command("docker-registry", "serve", config))
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return "", err
	}
	p.server = cmd
	listens := make(chan string)
	go func() {
		defer close(listens)
		found := false
		for s := bufio.NewScanner(out); s.Scan(); {
			if _, rest, ok := strings.Cut(s.Text(), "listening on "); ok && !found {
				found = true
				listens <- rest[:strings.IndexAny(rest+`"`, `", `)]
			}
		}
	}()
	host, ok := <-listens
	if !ok {
		return "", errors.New("docker-registry ended before it listened")
	}
	return host, nil
}

func (p *pulls) close() error {
	var err error
	if p.server != nil {
		err = p.server.Process.Kill()
		_ = p.server.Wait() // it was killed
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}

// ours runs a verb of image on an empty store.
func (p *pulls) ours(verb ...string) (usage, error) {
	state := filepath.Join(p.dir, "state")
	cmd := p.bench.ours.command(append([]string{"image"}, verb...)...)
	cmd.Env = append(cmd.Env, "SANDBOXCTL_STATE="+state)
	if err := p.settle(state); err != nil {
		return usage{}, err
	}
	u, err := measured(cmd, "")
	return u, errors.Join(err, os.RemoveAll(state))
}

// peer runs a program that fills the directory of the others.
func (p *pulls) peer(args ...string) (usage, error) {
	if err := p.settle(p.out()); err != nil {
		return usage{}, err
	}
	u, err := measured(apart(exec.Command(args[0], args[1:]...)), p.out())
	return u, errors.Join(err, os.RemoveAll(p.out()))
}

// settle makes an empty directory. What was written and removed before is settled then:
// the disk works for the measurement alone.
func (p *pulls) settle(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return syncDisk(dir)
}

// ofDaemon starts a sandbox of the image, and returns by how much the daemon's resident
// memory grew at most.
func (p *pulls) ofDaemon() (mib float64, err error) {
	o := p.bench.ours
	pid := o.daemon.Process.Pid
	before, err := peak(pid)
	if err != nil {
		return 0, err
	}
	own := o.guest.root
	o.guest.root = fmt.Sprintf("{image: {ref: %q}}", "oci:"+p.layout+":1")
	_, err = o.put("pulled", once(o.guest.print))
	if o.guest.root = own; err != nil {
		return 0, err
	}
	if _, err := o.firstLine("pulled", 1); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	kib, err := field(string(text), "VmHWM:")
	return float64(kib)/1024 - before, errors.Join(err, o.clear())
}
