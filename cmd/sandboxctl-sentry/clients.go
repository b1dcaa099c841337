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
	"sandboxctl.dev/cmd/sandboxctl-sentry/portforward"
	"sandboxctl.dev/launcher/wire"
)

const (
	// mostWork bounds what a sentry does for clients at a time. Each takes a descriptor,
	// and some ten kilobytes of the sandbox's memory.
	mostWork = 512
	// quietLimit is how long work may take to end before the state is saved.
	quietLimit = 5 * time.Second
)

// clients is what the sentry does for clients beside commands.
type clients struct{ work *clientwork.Group }

// begin counts a piece of work, or tells the client why there is none.
func (c *clients) begin(socket int) *clientwork.Work {
	w, err := c.work.Begin()
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
	work := c.begin(socket)
	if work == nil {
		return nil
	}
	return portforward.Serve(k, work, socket, uint16(port))
}

// quiet serves wire.QuietSink.
func (c *clients) quiet(_ *kernel.Kernel, _ map[string]any, socket int) error {
	client, err := clientsocket.New(socket, nil)
	if err != nil {
		return err
	}
	go func() {
		defer client.Close()
		line := "\n"
		if !c.work.Quiet(quietLimit) {
			line = "a copy of files in the sandbox does not end\n"
		}
		defer c.work.Resume()
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
