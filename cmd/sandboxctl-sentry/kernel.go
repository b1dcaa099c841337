// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// currentKernel is the guest's kernel, nil before its first task. A restore puts
// another one in the place of the first.
type currentKernel struct {
	atomic.Pointer[kernel.Kernel]
	// created is told each task before that begins, unless it is nil.
	created func(*kernel.Task)
}

// track has every platform note the kernel of the tasks that it is asked to run.
// gVisor's loader keeps its kernel to itself, and this is the one place where it
// passes through an interface that others may implement.
func (c *currentKernel) track() error {
	for _, name := range platform.List() {
		p, err := platform.Lookup(name)
		if err != nil {
			return err
		}
		platform.Register(name, &trackedConstructor{p, c})
	}
	return nil
}

type trackedConstructor struct {
	platform.Constructor
	current *currentKernel
}

func (t *trackedConstructor) New(opts platform.Options) (platform.Platform, error) {
	p, err := t.Constructor.New(opts)
	if err != nil {
		return nil, err
	}
	return &trackedPlatform{p, t.current}, nil
}

type trackedPlatform struct {
	platform.Platform
	current *currentKernel
}

// NewContext implements platform.Platform.NewContext. It is called once a task.
func (t *trackedPlatform) NewContext(ctx context.Context) platform.Context {
	if k := kernel.KernelFromContext(ctx); k != nil && t.current.Load() != k {
		t.current.Store(k)
	}
	if t.current.created != nil {
		if task := kernel.TaskFromContext(ctx); task != nil {
			t.current.created(task)
		}
	}
	return t.Platform.NewContext(ctx)
}
