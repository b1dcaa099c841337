// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// The server that loads are measured with.
const (
	netServer  = "serve"
	redisName  = "redis"
	portRedis  = 6379
	redisCalls = 5000
)

// measurement is a load of one kind, with the processor time of the sandbox.
type measurement struct {
	row, cpu, p99 *row
	run           func(s netSide) (loaded, error)
}

func (n *networks) measurement(id, what string, goal float64, run func(s netSide) (loaded, error)) measurement {
	return measurement{n.row(id, what, goal), n.row(id+"-cpu", "the measurement before, processor time of the sandbox", 0), nil, run}
}

// measure is one round of it.
func (m *measurement) measure(name string, s netSide) (time.Duration, error) {
	all, err := processes()
	if err != nil {
		return 0, err
	}
	of := s.holds(all)
	before, err := cpuSince(of)
	if err != nil {
		return 0, err
	}
	l, err := m.run(s)
	if err != nil {
		return 0, err
	}
	after, err := cpuSince(of)
	m.cpu.add(name, milliseconds(after-before))
	if m.p99 != nil {
		m.p99.add(name, milliseconds(l.P99))
	}
	return l.Took, err
}

// published is where the other machine finds a port of a server.
func published(port int) string { return net.JoinHostPort(hostAddress, strconv.Itoa(atHost+port)) }

// loads measures what passes a network.
func (n *networks) loads(hasRedis bool) error {
	requests := n.measurement("requests", fmt.Sprintf("%d requests of HTTP on 16 connections, from another machine to a published port", netRequests), 1.05,
		func(s netSide) (loaded, error) { return fromFar(s, requestsOf(published(portHTTP), 16, netRequests)) })
	requests.p99 = n.row("requests-p99", "of these requests, what 99 of 100 take at most", 0)
	connections := n.measurement("connections", fmt.Sprintf("%d connections with a request each, 8 at a time", netConnections), 1.05,
		func(s netSide) (loaded, error) {
			return fromFar(s, connectionsOf(published(portHTTP), 8, netConnections))
		})
	connections.p99 = n.row("connections-p99", "of these connections, what 99 of 100 take at most", 0)
	receive := n.measurement("receive", fmt.Sprintf("%d MiB from the sandbox to another machine, on one connection", netStream), 1.05,
		func(s netSide) (loaded, error) { return fromFar(s, receiveOf(published(portSource), netStream)) })
	send := n.measurement("send", fmt.Sprintf("%d MiB from another machine to the sandbox, on one connection", netStream), 1.05,
		func(s netSide) (loaded, error) { return fromFar(s, sendOf(published(portSink), netStream)) })
	names := n.measurement("names", fmt.Sprintf("%d answers about its own name, asked by the sandbox, 4 at a time", netNames), 0, askNames)
	able, err := n.try(func(_ string, s netSide) error {
		_, err := s.serve(netServer, inRoot("serve"), atHost+portHTTP, portHTTP, atHost+portSink, portSink, atHost+portSource, portSource)
		if err != nil {
			return err
		}
		_, err = fromFar(s, answerOf(published(portHTTP)))
		return err
	}, requests.row, requests.cpu, requests.p99, connections.row, connections.cpu, connections.p99, receive.row, receive.cpu, send.row, send.cpu)
	if err != nil {
		return err
	}
	answered, err := n.able(able, func(name string) error { _, err := askNames(n.sides[name]); return err }, names.row, names.cpu)
	if err != nil {
		return err
	}
	var tasks []task
	add := func(m measurement, of []string) {
		for _, name := range of {
			tasks = append(tasks, task{m.row, name, func() (time.Duration, error) { return m.measure(name, n.sides[name]) }})
		}
	}
	for _, m := range []measurement{requests, connections, receive, send} {
		add(m, able)
	}
	add(names, answered)
	redisAble, measurements, err := n.redis(hasRedis)
	if err != nil {
		return err
	}
	for _, m := range measurements {
		add(m, redisAble)
	}
	if err := n.rounds("networks: loads", n.cfg.rounds, tasks); err != nil {
		return err
	}
	for _, name := range able {
		if err := n.sides[name].forget(netServer); err != nil {
			return err
		}
	}
	for _, name := range redisAble {
		if err := n.sides[name].forget(redisName); err != nil {
			return err
		}
	}
	return nil
}

// askNames has a server ask for its own name.
func askNames(s netSide) (loaded, error) {
	server, asked, err := s.asks(netServer)
	if err != nil {
		return loaded{}, err
	}
	text, err := output(s.inside(netServer, inRoot(namesOf(server, asked, 4, netNames)...)...))
	if err != nil {
		return loaded{}, err
	}
	return parseLoaded(text)
}

// redis starts a Redis of the tree on each side, whose client is on the other machine.
func (n *networks) redis(there bool) ([]string, []measurement, error) {
	var out []measurement
	var rows []*row
	for _, verb := range []string{"set", "get"} {
		m := n.measurement("redis-"+verb, fmt.Sprintf("%d of redis-benchmark -t %s, from another machine to a published port", redisCalls, verb), 1.05,
			func(s netSide) (loaded, error) { return n.redisBenchmark(s, verb) })
		out, rows = append(out, m), append(rows, m.row, m.cpu)
	}
	if !there {
		for _, r := range rows {
			r.Notes["any side"] = fmt.Sprintf("there is no tree with %s: -only images-run makes one, or -tree names it", redis.program)
		}
		return nil, nil, nil
	}
	able, err := n.try(func(_ string, s netSide) error {
		if _, err := s.serve(redisName, []string{"/usr/bin/redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp"}, atHost+portRedis, portRedis); err != nil {
			return err
		}
		for deadline := time.Now().Add(time.Minute); ; {
			// redis-benchmark tries without end, and without a pause, where nobody answers.
			_, err := n.redisClient(s, "redis-cli", "ping")
			if err == nil || time.Now().After(deadline) {
				return err
			}
			if err := sleep(n.ctx, 10*poll); err != nil {
				return err
			}
		}
	}, rows...)
	return able, out, err
}

// redisBenchmark measures requests of the other machine.
func (n *networks) redisBenchmark(s netSide, verb string) (loaded, error) {
	text, err := n.redisClient(s, "redis-benchmark", "-t", verb, "-n", strconv.Itoa(redisCalls), "--csv")
	if err != nil {
		return loaded{}, err
	}
	rate, err := redisRate(text)
	if err != nil {
		return loaded{}, errors.Join(err, errors.New(text))
	}
	return loaded{Took: time.Duration(redisCalls / rate * float64(time.Second))}, nil
}

// redisClient runs a client of the tree on the other machine.
func (n *networks) redisClient(s netSide, program string, args ...string) (text string, err error) {
	ctx, end := context.WithTimeout(n.ctx, time.Minute)
	defer end()
	root := filepath.Join(n.cfg.work, "netroot")
	cmd := apart(exec.CommandContext(ctx, "chroot", append([]string{root, program, "-h", hostAddress, "-p", strconv.Itoa(atHost + portRedis)}, args...)...))
	err = s.lan().far.Do(func() (err error) {
		text, err = output(cmd)
		return err
	})
	return text, err
}
