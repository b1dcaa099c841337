// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"math"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/kernel"

	"sandboxctl.dev/cmd/sandboxctl-sentry/clientsocket"
	"sandboxctl.dev/cmd/sandboxctl-sentry/clientwork"
	"sandboxctl.dev/cmd/sandboxctl-sentry/guestfiles"
	"sandboxctl.dev/cmd/sandboxctl-sentry/portforward"
	"sandboxctl.dev/launcher/wire"
)

const (
	// mostWork bounds what a sentry does for clients at a time. Each takes a descriptor,
	// and some ten kilobytes of the sandbox's memory.
	mostWork = 512
	// mostCopies bounds those that are under way at a time.
	mostCopies = 8
	// quietLimit is how long work may take to end before the state is saved.
	quietLimit = 5 * time.Second
)

// clients is what the sentry does for clients beside commands.
type clients struct {
	work *clientwork.Group
	// copies are beside it: a file system that the guest serves itself may hold one, which
	// holds a thread then.
	copies *clientwork.Group
}

// begin counts a piece of work, or tells the client why there is none.
func begin(g *clientwork.Group, socket int) *clientwork.Work {
	w, err := g.Begin()
	if err == nil {
		return w
	}
	// A line has room in a socket that nothing was written to.
	_, _ = unix.Write(socket, []byte(err.Error()+"\n"))
	_ = unix.Close(socket)
	return nil
}

// forward serves wire.ForwardSink.
func (c *clients) forward(k *kernel.Kernel, config map[string]any, socket int) error {
	// JSON has no other numbers.
	port, ok := config[wire.KeyPort].(float64)
	if !ok || port < 0 || port > math.MaxUint16 || port != math.Trunc(port) {
		return errors.Join(errors.New("expected a port"), unix.Close(socket))
	}
	work := begin(c.work, socket)
	if work == nil {
		return nil
	}
	return portforward.Serve(k, work, socket, uint16(port))
}

// copyOut serves wire.CopyOutSink.
func (c *clients) copyOut(k *kernel.Kernel, config map[string]any, socket int) error {
	return c.copy(config, socket, wire.KeyFollow, func(w *clientwork.Work, path string, follow bool) error {
		return guestfiles.Out(k, w, socket, path, follow)
	})
}

// copyIn serves wire.CopyInSink.
func (c *clients) copyIn(k *kernel.Kernel, config map[string]any, socket int) error {
	return c.copy(config, socket, wire.KeyInto, func(w *clientwork.Work, path string, into bool) error {
		return guestfiles.In(k, w, socket, path, into)
	})
}

func (c *clients) copy(config map[string]any, socket int, key string, f func(*clientwork.Work, string, bool) error) error {
	path, ok := config[wire.KeyPath].(string)
	flag, is := config[key].(bool)
	if !ok || !is {
		return errors.Join(errors.New("expected a path"), unix.Close(socket))
	}
	work := begin(c.copies, socket)
	if work == nil {
		return nil
	}
	return f(work, path, flag)
}

// quiet serves wire.QuietSink.
func (c *clients) quiet(_ *kernel.Kernel, _ map[string]any, socket int) error {
	client, err := clientsocket.New(socket, nil)
	if err != nil {
		return err
	}
	go func() {
		defer client.Close()
		defer c.work.Resume()
		defer c.copies.Resume()
		line := "\n"
		connections, copies := c.work.Quiet(quietLimit), c.copies.Quiet(quietLimit)
		if !connections || !copies {
			line = "a copy of files of the sandbox does not end\n"
		}
		if _, err := client.Write([]byte(line)); err != nil {
			return
		}
		var b [1]byte
		for err == nil {
			_, err = client.Read(b[:])
		}
	}()
	return nil
}
