// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sandboxctl.dev/actual"
)

// Sizes of one measurement.
const (
	netRequests    = 3000 // on connections that stay
	netConnections = 1000 // with a request each
	netStream      = 256  // MiB
	netNames       = 1000
)

// atHost is what a port of the server is published at.
const atHost = 10000

// netSide is what has sandboxes on networks.
type netSide interface {
	lan() *lan
	start() (time.Duration, error)  // of a sandbox on a network, until its first line
	remove() (time.Duration, error) // of one that runs
	serve(name string, command []string, ports ...int) (time.Time, error)
	asks(name string) (server, asked string, err error) // of its own name
	inside(name string, command ...string) *exec.Cmd
	forget(name string) error
	holds(all []proc) map[int]bool
}

// networks measures sandboxes on networks beside containers of podman on its bridge.
func (b *bench) networks() (err error) {
	dir := filepath.Join(b.cfg.work, "netroot")
	hasRedis, err := b.netRoot(dir)
	if err != nil {
		return err
	}
	o, err := newOurNet(b, busyboxGuest(dir))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	n := &networks{bench: b, ours: o, sides: map[string]netSide{sandboxctlName: o}}
	what := "podman"
	if b.cfg.peers {
		p, perr := newPodmanNet(b, busyboxGuest(dir))
		if perr == nil {
			defer func() { err = errors.Join(err, p.close()) }()
			n.sides[podmanName] = p
			what += " on a bridge of " + p.backend
		} else if n.unable = map[string]string{podmanName: reason(perr)}; b.ctx.Err() != nil {
			return b.ctx.Err()
		}
	}
	if err := n.starts(what); err != nil {
		return err
	}
	if err := n.loads(hasRedis); err != nil {
		return err
	}
	return n.among()
}

// netRoot makes a root with the program of the measurement, of the tree of images if there is
// one: that has Redis.
func (b *bench) netRoot(dir string) (hasRedis bool, err error) {
	if _, err := os.Stat(b.cfg.tree); err == nil {
		if err := unpack(b.cfg.tree, dir); err != nil {
			return false, err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return false, err
	} else if err := makeRoot(dir); err != nil {
		return false, err
	}
	for _, d := range []string{"etc", "run", "var"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return false, err
		}
	}
	for _, f := range []string{"hosts", "resolv.conf", "hostname"} { // podman mounts something there
		f, err := os.OpenFile(filepath.Join(dir, "etc", f), os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return false, err
		}
		if err := f.Close(); err != nil {
			return false, err
		}
	}
	_, err = os.Stat(filepath.Join(dir, redis.program))
	return err == nil, copyLoad(filepath.Join(dir, "bin", loadProgram))
}

// loadProgram is its name in roots.
const loadProgram = "bench-load"

func inRoot(args ...string) []string {
	return append([]string{"/bin/" + loadProgram, loadCommand}, args...)
}

// networks is ours on a network beside podman on one.
type networks struct {
	*bench
	ours   *ourNet
	sides  map[string]netSide
	unable map[string]string
}

// row adds one that is compared with podman.
func (n *networks) row(id, what string, goal float64) *row {
	r := n.alone("network-"+id, what, "ms", goal)
	r.Base, r.Notes = podmanName, maps.Clone(n.unable)
	if r.Notes == nil {
		r.Notes = map[string]string{}
	}
	return r
}

// withoutNetwork is what sandboxes on networks are compared with to see what those cost.
const withoutNetwork = "without a network"

// against adds one that is compared with sandboxes of ours without a network.
func (n *networks) against(id, what string, goal float64) *row {
	r := n.alone("network-"+id, what, "ms", goal)
	r.Base, r.Differ = withoutNetwork, true
	return r
}

// try is able for the sides there are.
func (n *networks) try(try func(name string, s netSide) error, rows ...*row) ([]string, error) {
	return n.able(slices.Sorted(maps.Keys(n.sides)), func(name string) error { return try(name, n.sides[name]) }, rows...)
}

// starts measures the beginning and the end of a sandbox on a network.
func (n *networks) starts(peer string) error {
	start := n.row("start", "sandbox on a network, manifest renamed in → first output ("+peer+": `run`)", 0.65)
	gone := n.row("gone", "a running sandbox on a network removed → nothing of it is left (podman: `rm --force`)", 0)
	published := n.row("published", "manifest renamed in → first answer at its published port (podman: `run --publish`)", 0.65)
	attach := n.against("attach", "what the network adds to a start", 10)
	detach := n.against("detach", "what the network adds to a removal", 10)
	names, err := n.try(func(_ string, s netSide) error {
		for _, do := range []func() (time.Duration, error){s.start, s.remove, func() (time.Duration, error) { return publish(s) }} {
			if _, err := do(); err != nil {
				return err
			}
		}
		return nil
	}, start, gone, published)
	if err != nil {
		return err
	}
	tasks := []task{
		{attach, withoutNetwork, func() (time.Duration, error) { return n.ours.startWith("") }},
		{detach, withoutNetwork, func() (time.Duration, error) { return n.ours.removeWith("") }},
	}
	for _, name := range names {
		s := n.sides[name]
		tasks = append(tasks, task{start, name, s.start}, task{gone, name, s.remove},
			task{published, name, func() (time.Duration, error) { return publish(s) }})
	}
	n.ours.phases = map[string]*row{}
	for _, p := range []string{actual.StartRecord, actual.StartSpawn, actual.StartBoot, actual.StartRoot} {
		n.ours.phases[p] = n.against("attach-"+p, "of what it adds to a start: in the phase `"+p+"`", 0)
	}
	err = n.rounds("networks: starts", n.cfg.rounds, tasks)
	if n.ours.phases = nil; err != nil {
		return err
	}
	copySeries(attach, start)
	copySeries(detach, gone)
	return nil
}

// copySeries gives a row what another one has of ours: they were one round.
func copySeries(to, from *row) {
	for _, v := range from.Series[sandboxctlName] {
		to.add(sandboxctlName, v)
	}
}

// among measures starts on a network that many sandboxes are on.
func (n *networks) among() error {
	if err := n.ours.up(n.cfg.fleet); err != nil {
		return err
	}
	attach := n.against("attach-among", fmt.Sprintf("what the network adds to a start among %d on it", n.cfg.fleet), 10)
	return n.rounds(fmt.Sprintf("networks: starts among %d", n.cfg.fleet), n.cfg.rounds, []task{
		{attach, sandboxctlName, n.ours.start},
		{attach, withoutNetwork, func() (time.Duration, error) { return n.ours.startWith("") }},
	})
}

// publish measures a start until the server is answered from another machine.
func publish(s netSide) (took time.Duration, err error) {
	const name = "published"
	at := atHost + 1000
	client, answered, err := listen(s.lan(), answerOf(net.JoinHostPort(hostAddress, strconv.Itoa(at))))
	if err != nil {
		return 0, err
	}
	began, err := s.serve(name, inRoot("serve"), at, portHTTP)
	if err != nil {
		_ = client.Process.Kill() // nobody will answer it
		_, _ = answered()
		return 0, err
	}
	l, err := answered()
	return l.At.Sub(began), errors.Join(err, s.forget(name))
}

// listen starts a client on the other machine and returns once it has begun. The function
// waits for its end, and returns what it found out.
func listen(l *lan, args []string) (*exec.Cmd, func() (loaded, error), error) {
	cmd, err := far(args)
	if err != nil {
		return nil, nil, err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := l.far.Do(cmd.Start); err != nil {
		return nil, nil, err
	}
	r := bufio.NewReader(out)
	wait := func() (loaded, error) {
		text, err := io.ReadAll(r)
		if err = errors.Join(err, cmd.Wait()); err != nil {
			return loaded{}, fmt.Errorf("%w\n%s", err, stderr.String())
		}
		return parseLoaded(string(text))
	}
	if _, err := r.ReadString('\n'); err != nil {
		_, waitErr := wait()
		return nil, nil, errors.Join(err, waitErr)
	}
	return cmd, wait, nil
}

// far is this program as a client.
func far(args []string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return apart(exec.Command(self, append([]string{loadCommand}, args...)...)), nil
}

// fromFar runs a client on the other machine.
func fromFar(s netSide, args []string) (loaded, error) {
	cmd, err := far(args)
	if err != nil {
		return loaded{}, err
	}
	var text string
	err = s.lan().far.Do(func() (err error) {
		text, err = output(cmd)
		return err
	})
	if err != nil {
		return loaded{}, err
	}
	return parseLoaded(text)
}

// parseLoaded reads what a client has printed.
func parseLoaded(text string) (l loaded, err error) {
	text = strings.TrimPrefix(text, loadBegins)
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return l, fmt.Errorf("%w in %s", err, text)
	}
	return l, nil
}
