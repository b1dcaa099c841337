// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/launcher/addresses"
)

// onNetwork is what makes a sandbox join the network default.
const onNetwork = "  network: {mode: bridge}\n"

// ourNet is ours on a network of its own.
type ourNet struct {
	*ours
	at *lan
	// phases are rows of the phases of starts, nil while those are not measured.
	phases map[string]*row
}

func newOurNet(b *bench, g guest) (*ourNet, error) {
	at, err := newLAN(false)
	if err != nil {
		return nil, err
	}
	o, err := newOurs(b.ctx, b.cfg.bin, filepath.Join(b.cfg.work, "networks"), g)
	if err == nil {
		o.joins = onNetwork
		err = at.do(o.startDaemon)
	}
	n := &ourNet{ours: o, at: at}
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (o *ourNet) close() error {
	defer o.at.close()
	if o.ours == nil {
		return nil
	}
	return o.at.do(o.ours.close) // it may start a daemon
}

func (o *ourNet) lan() *lan { return o.at }

func (o *ourNet) start() (time.Duration, error) { return o.startWith(onNetwork) }

func (o *ourNet) remove() (time.Duration, error) { return o.removeWith(onNetwork) }

// startWith measures a start of a sandbox with more in its spec.
func (o *ourNet) startWith(more string) (time.Duration, error) {
	o.serial++
	name := fmt.Sprintf("once-%d", o.serial)
	began, err := o.put(name, once(o.guest.print)+more)
	if err != nil {
		return 0, err
	}
	at, err := o.firstLine(name, 1)
	if err == nil && o.phases != nil {
		err = o.addPhases(name, map[bool]string{true: sandboxctlName, false: withoutNetwork}[more == onNetwork])
	}
	return at.Sub(began), errors.Join(err, o.forget(name))
}

// addPhases adds how long each phase of the start took that is over.
func (o *ourNet) addPhases(name, subject string) error {
	rec, _, err := o.store.Get(name)
	if err != nil || rec == nil || rec.Start == nil || !rec.Start.Done() {
		return errors.Join(err, fmt.Errorf("the phases of the start of %s are not on record", name))
	}
	for _, p := range rec.Start.Phases {
		if r := o.phases[p.Phase]; r != nil {
			r.add(subject, p.Milliseconds)
		}
	}
	return nil
}

// removeWith measures the end of one that sleeps.
func (o *ourNet) removeWith(more string) (time.Duration, error) {
	o.serial++
	name := fmt.Sprintf("sleeps-%d", o.serial)
	if _, err := o.put(name, "  command: "+flow(o.guest.sleep)+"\n  terminationGracePeriod: 0s\n"+more); err != nil {
		return 0, err
	}
	if _, err := o.running(name); err != nil {
		return 0, err
	}
	began := time.Now()
	err := o.forget(name)
	return time.Since(began), err
}

// forget removes a sandbox and waits until nothing of it is left.
func (o *ourNet) forget(name string) error {
	if err := os.Remove(filepath.Join(o.work, "manifests", name+".yaml")); err != nil {
		return err
	}
	return o.until("the removal of "+name, func() (bool, error) {
		_, err := os.Stat(filepath.Join(o.work, "state", "sandboxes", name))
		return errors.Is(err, os.ErrNotExist), nil
	})
}

// serve starts a server. Ports are pairs: of the host, and of the sandbox.
func (o *ourNet) serve(name string, command []string, ports ...int) (time.Time, error) {
	var list []string
	for p := range slices.Chunk(ports, 2) {
		list = append(list, fmt.Sprintf("{hostPort: %d, containerPort: %d}", p[0], p[1]))
	}
	return o.put(name, fmt.Sprintf("  command: %s\n  terminationGracePeriod: 0s\n  network: {mode: bridge, ports: [%s]}\n", flow(command), strings.Join(list, ", ")))
}

func (o *ourNet) asks(name string) (server, asked string, err error) {
	rec, err := o.running(name)
	if err != nil {
		return "", "", err
	}
	a := rec.Attachments[0]
	return addresses.Gateway(a.Subnet4).String(), name + "." + a.Network + ".internal.", nil
}

func (o *ourNet) inside(name string, command ...string) *exec.Cmd {
	return o.command(append([]string{"exec", name, "--"}, command...)...)
}

// podmanNet is podman with runsc on a network of its own.
type podmanNet struct {
	*podman
	at      *lan
	backend string
	serial  int
}

// podmanNetwork is the name of its network.
const podmanNetwork = "bench"

func newPodmanNet(b *bench, g guest) (_ *podmanNet, err error) {
	work := filepath.Join(b.cfg.work, "podman-net") // podman takes no path of more than 50 bytes
	// With the flags that it has elsewhere, but a network stack.
	p, err := newPodman(filepath.Join(b.cfg.bin, runscName), work, g, "root="+filepath.Join(work, "runsc"), "network=sandbox", "ignore-cgroups")
	if err != nil {
		return nil, err
	}
	n := &podmanNet{podman: p, backend: "CNI"}
	for _, at := range []string{"/usr/lib/podman/netavark", "/usr/libexec/podman/netavark", "/usr/local/libexec/podman/netavark"} {
		if unix.Access(at, unix.X_OK) == nil {
			n.backend = "netavark"
		}
	}
	conf := fmt.Sprintf("[engine]\nlock_type = \"file\"\n[network]\nnetwork_backend = %q\n", strings.ToLower(n.backend))
	if err := os.WriteFile(p.conf(), []byte(conf), 0o644); err != nil {
		return nil, err
	}
	p.flags = append(p.flags, "--network-config-dir", filepath.Join(work, "networks"))
	if n.at, err = newLAN(true); err != nil {
		return nil, err
	}
	_ = share(p.groups) // what a container runs has the share of what others run
	if _, err := n.say("network", "create", podmanNetwork); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// say runs podman on its host.
func (p *podmanNet) say(args ...string) (text string, err error) {
	err = p.at.do(func() error {
		text, err = output(p.command(args...))
		return err
	})
	return strings.TrimSpace(text), err
}

func (p *podmanNet) close() error {
	defer p.at.close()
	return p.at.do(p.podman.close)
}

func (p *podmanNet) lan() *lan { return p.at }

// on are the words that run a container on the network.
func (p *podmanNet) on(flags ...string) []string {
	return slices.Concat([]string{"run", "--network", podmanNetwork, "--log-driver", "none", "--cgroup-parent", "/" + p.groups}, flags, []string{"--rootfs", p.guest.dir})
}

func (p *podmanNet) start() (took time.Duration, err error) {
	err = p.at.do(func() error {
		took, err = firstLineOf(p.command(append(p.on("--rm"), p.guest.print...)...))
		return err
	})
	return took, err
}

func (p *podmanNet) detached(flags []string) error {
	return p.at.do(func() error { return quietly(p.command(flags...), filepath.Join(p.work, "detached.log")) })
}

func (p *podmanNet) remove() (time.Duration, error) {
	p.serial++
	name := fmt.Sprintf("sleeps-%d", p.serial)
	if err := p.detached(append(p.on("--detach", "--name", name), p.guest.sleep...)); err != nil {
		return 0, err
	}
	began := time.Now()
	err := p.forget(name)
	return time.Since(began), err
}

func (p *podmanNet) forget(name string) error {
	_, err := p.say("rm", "--force", "--time", "0", name)
	return err
}

func (p *podmanNet) serve(name string, command []string, ports ...int) (time.Time, error) {
	flags := []string{"--detach", "--name", name}
	for at := range slices.Chunk(ports, 2) {
		flags = append(flags, "--publish", fmt.Sprintf("%d:%d", at[0], at[1]))
	}
	began := time.Now()
	return began, p.detached(append(p.on(flags...), command...))
}

func (p *podmanNet) asks(name string) (server, asked string, err error) {
	dns, err := p.say("network", "inspect", "--format", "{{.DNSEnabled}}", podmanNetwork)
	if err == nil && dns != "true" {
		err = fmt.Errorf("its network of %s answers no names: aardvark-dns or the plugin dnsname is not installed", p.backend)
	}
	if err != nil {
		return "", "", err
	}
	server, err = p.say("inspect", "--format", "{{(index .NetworkSettings.Networks \""+podmanNetwork+"\").Gateway}}", name)
	return server, name + ".dns.podman.", err
}

func (p *podmanNet) inside(name string, command ...string) *exec.Cmd {
	return p.command(append([]string{"exec", name}, command...)...)
}
