// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"

	"github.com/spf13/pflag"

	"sandboxctl.dev/launcher/companion"
)

// programFlags name the programs that are started for each sandbox.
type programFlags struct {
	sentry, gofer string
}

func (p *programFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&p.sentry, "sentry", "", "sentry binary (default: sandboxctl-sentry beside this program)")
	fl.StringVar(&p.gofer, "gofer", "", "gofer binary (default: sandboxctl-gofer beside this program)")
}

// find returns the paths of both programs.
func (p *programFlags) find() (sentry, gofer string, err error) {
	if sentry, err = companion.Find(companion.SentryName, p.sentry); err != nil {
		return "", "", err
	}
	gofer, err = companion.Find(companion.GoferName, p.gofer)
	return sentry, gofer, err
}

// program is what is known of one of them. With err it can't be used.
type program struct {
	path, gvisor string
	err          error
}

func (p *program) String() string {
	if p.err != nil {
		return "not usable: " + clean(p.err.Error())
	}
	return "gVisor " + p.gvisor + ", " + p.path
}

// check asks both programs for their versions, at the same time: a sentry takes
// as long to start as everything else together.
func (p *programFlags) check(ctx context.Context) (sentry, gofer program) {
	one := func(name, explicit string) (out program) {
		if out.path, out.err = companion.Find(name, explicit); out.err == nil {
			out.gvisor, out.err = companion.Check(ctx, name, out.path)
		}
		return out
	}
	var both sync.WaitGroup
	both.Go(func() { sentry = one(companion.SentryName, p.sentry) })
	both.Go(func() { gofer = one(companion.GoferName, p.gofer) })
	both.Wait()
	if sentry.err == nil && gofer.err == nil {
		gofer.err = companion.SameGVisor(sentry.gvisor, gofer.gvisor)
	}
	return sentry, gofer
}
