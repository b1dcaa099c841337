// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// server is a program with its data in the volume /data. Its client runs in the same
// sandbox: both sides have loopback there, and no network.
type server struct {
	name, user string
	program    string // pattern of a file that the root must have
	script     string
	ready      string // succeeds when it answers
	prepare    string // is run once then
	direct     bool   // the sandbox has files of the volume by descriptors, as podman's runsc has
}

// directly is the same server with direct file access.
func (s server) directly() server {
	s.name, s.direct = s.name+"-direct", true
	return s
}

var redis = server{
	name: "redis", user: "redis", program: "usr/bin/redis-server",
	script: "exec redis-server --dir /data --appendonly yes --save '' --bind 127.0.0.1",
	ready:  "redis-cli ping | grep PONG",
}

var postgres = server{
	name: "postgres", user: "postgres", program: "usr/lib/postgresql/*/bin/pgbench",
	script:  "set -e; cd /usr/lib/postgresql/*/bin; ./initdb --no-sync --locale=C --auth=trust -D /data/db; exec ./postgres -D /data/db -c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp",
	ready:   "cd /usr/lib/postgresql/*/bin; ./psql -h 127.0.0.1 -c 'select 1' postgres",
	prepare: "cd /usr/lib/postgresql/*/bin; ./pgbench -h 127.0.0.1 --initialize --quiet postgres",
}

const (
	setKeys  = "redis-benchmark -t set -n 5000 --csv"
	getKeys  = "redis-benchmark -t get -n 5000 --csv"
	transact = "cd /usr/lib/postgresql/*/bin; ./pgbench -h 127.0.0.1 -n -c 4 -t 50 postgres"
)

// servers measures requests to programs that keep their data in a volume.
func (c *comparison) servers(tree string) error {
	err := c.server(tree, redis, []request{
		c.request("image-redis-set", "redis-benchmark: 1000 SET, in an append-only file on a volume", setKeys, redisRate),
		c.request("image-redis-get", "redis-benchmark: 1000 GET", getKeys, redisRate),
	})
	if err != nil {
		return err
	}
	err = c.server(tree, postgres, []request{
		c.request("image-pgbench", "pgbench, 4 clients: 1000 transactions, on a volume", transact, pgbenchRate),
	})
	if err != nil {
		return err
	}
	return c.server(tree, postgres.directly(), []request{
		c.request("image-pgbench-direct", "the same transactions with `fileAccess: direct`, as podman's runsc has it", transact, pgbenchRate),
	})
}

// request is what a client does, and how many of it in a second it says that it did.
type request struct {
	row, cpu *row
	script   string
	rate     func(out string) (float64, error)
}

func (c *comparison) request(id, what, script string, rate func(string) (float64, error)) request {
	return request{c.row(id, what, "ms", 1.05), c.row(id+"-cpu", "the measurement before, processor time of the sandbox", "ms", 0), script, rate}
}

// measure makes the requests of one round.
func (r request) measure(s side, server, subject string) (time.Duration, error) {
	all, err := processes()
	if err != nil {
		return 0, err
	}
	of := s.holds(all)
	before, err := cpuSince(of)
	if err != nil {
		return 0, err
	}
	out, err := s.ask(server, r.script)
	if err != nil {
		return 0, err
	}
	after, err := cpuSince(of)
	if err != nil {
		return 0, err
	}
	r.cpu.add(subject, milliseconds(after-before))
	rate, err := r.rate(out)
	if err != nil {
		return 0, fmt.Errorf("%w in %s", err, out)
	}
	return time.Duration(1000 / rate * float64(time.Second)), nil
}

// server measures requests to one server, of each side in turn.
func (c *comparison) server(tree string, s server, requests []request) error {
	var rows []*row
	for _, r := range requests {
		rows = append(rows, r.row, r.cpu)
	}
	if found, _ := filepath.Glob(filepath.Join(tree, s.program)); len(found) == 0 {
		for _, r := range rows {
			r.Notes = map[string]string{"any side": fmt.Sprintf("the tree has no %s", s.program)}
		}
		return nil
	}
	names, err := c.able(func(_ string, side side) error { return c.ready(side, s) }, rows...)
	if err != nil {
		return err
	}
	var tasks []task
	for _, name := range names {
		for _, r := range requests {
			tasks = append(tasks, task{r.row, name, func() (time.Duration, error) { return r.measure(c.sides[name], s.name, name) }})
		}
	}
	if err := c.b.rounds("images: "+s.name, c.b.cfg.rounds, tasks); err != nil {
		return err
	}
	for _, name := range names {
		if err := c.sides[name].stop(); err != nil {
			return err
		}
	}
	return nil
}

// ready starts a server and waits until it can be measured.
func (c *comparison) ready(side side, s server) error {
	if err := side.serve(s); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); ; {
		_, err := side.ask(s.name, s.ready)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer: %w", s.name, err)
		}
		if err := sleep(c.b.ctx, 10*poll); err != nil {
			return err
		}
	}
	if s.prepare == "" {
		return nil
	}
	_, err := side.ask(s.name, s.prepare)
	return err
}

// redisRate is requests in a second, in the CSV of redis-benchmark.
func redisRate(out string) (float64, error) {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	f := strings.Split(lines[len(lines)-1], ",")
	if len(f) < 2 {
		return 0, fmt.Errorf("no rate: %w", os.ErrInvalid)
	}
	return positive(strings.Trim(f[1], `"`))
}

// pgbenchRate is transactions in a second, in what pgbench prints.
func pgbenchRate(out string) (float64, error) {
	_, rest, ok := strings.Cut(out, "\ntps = ")
	if !ok {
		return 0, fmt.Errorf("no rate: %w", os.ErrInvalid)
	}
	rate, _, _ := strings.Cut(rest, " ")
	return positive(rate)
}

func positive(text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err == nil && v <= 0 {
		err = fmt.Errorf("a rate of %s: %w", text, os.ErrInvalid)
	}
	return v, err
}
