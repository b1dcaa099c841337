// SPDX-License-Identifier: Apache-2.0

package sentry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"sandboxctl.dev/launcher/wire"
)

// Subcontainer is what a container is started from that is not the first one of its sentry.
type Subcontainer struct {
	// Spec is its OCI spec, in JSON, and Conf the configuration of the sentry.
	Spec, Conf json.RawMessage
	// Mounts are what is below and above its trees, root first.
	Mounts []wire.MountConf
	// Stdio are its descriptors 0 to 2.
	Stdio [3]*os.File
	// Upper is an archive of what is laid over an image, nil if there is none.
	Upper *os.File
	// Trees are the connections to the gofer, or the image of the root, root first.
	Trees []*os.File
}

// Beside is the container of that name beside the first one.
func (c *Control) Beside(id string) *Container { return &Container{Control: c, id: id} }

// ServesFor says that the sentry has another name from now on: that of the sandbox which its
// second container is.
func (c *Control) ServesFor(sandbox string) { c.sandbox = sandbox }

// Create makes a container beside the first one. It has nothing yet, and is not started.
func (c *Container) Create(ctx context.Context) error {
	return c.call(ctx, wire.MethodCreateSubcontainer, wire.CreateArgs{CID: c.id}, nil)
}

// StartBeside starts the application of a container that Create has made. The files stay the
// caller's. It is done once: a second request is refused.
func (c *Container) StartBeside(ctx context.Context, s *Subcontainer) error {
	if len(s.Trees) == 0 || len(s.Trees) != len(s.Mounts) {
		return fmt.Errorf("start container %s: %d trees are mounted from %d files", c.id, len(s.Mounts), len(s.Trees))
	}
	files := append([]*os.File{}, s.Stdio[:]...)
	if s.Upper != nil {
		files = append(files, s.Upper)
	}
	files = append(files, s.Trees...)
	return c.call(ctx, wire.MethodStartSubcontainer, wire.StartArgs{
		Spec: s.Spec, Conf: s.Conf, CID: c.id, GoferMountConfs: s.Mounts, IsRootfsUpperTarFilePresent: s.Upper != nil,
	}, nil, files...)
}

// Destroy ends what runs of a container beside the first one, and forgets it.
func (c *Container) Destroy(ctx context.Context) error {
	return c.call(ctx, wire.MethodDestroySubcontainer, c.id, nil)
}

// numbers are those of the sandbox by those that gVisor tells, empty where both are the same,
// also for a sentry of an earlier release.
func (c *Control) numbers(ctx context.Context) (n wire.Numbers, err error) {
	err = c.readSink(ctx, wire.NumbersSink, "numbers of processes", maxReply, &n)
	if _, refused := errors.AsType[*RemoteError](err); refused {
		return nil, nil
	}
	return n, err
}

// renumber has the processes of a list carry the numbers of the sandbox. What has none there is
// left out: it is not in the sandbox, or has ended since.
func renumber(ps []wire.Process, n wire.Numbers) []wire.Process {
	if len(n) == 0 {
		return ps
	}
	out := ps[:0]
	for _, p := range ps {
		if n[p.PID] == 0 {
			continue
		}
		// One that a command has as its parent, which came from outside, has 0.
		p.PID, p.PPID, p.PGID = n[p.PID], n[p.PPID], n[p.PGID]
		threads := make([]int32, 0, len(p.Threads))
		for _, t := range p.Threads {
			if n[t] != 0 {
				threads = append(threads, n[t])
			}
		}
		p.Threads = threads
		out = append(out, p)
	}
	return out
}
