// SPDX-License-Identifier: Apache-2.0

// Package programs are the flags that name the programs started for each sandbox,
// and what can be said of those programs. The daemon, the OCI runtime and the verbs
// that look at the host have the same flags.
package programs

import (
	"context"
	"path/filepath"
	"sync"

	"github.com/spf13/pflag"

	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/companion"
)

// Flags name the programs that are started for each sandbox.
type Flags struct {
	Sentry, Gofer string
}

// Register adds the flags.
func (p *Flags) Register(fl *pflag.FlagSet) {
	fl.StringVar(&p.Sentry, "sentry", "", "sentry binary (default: sandboxctl-sentry beside this program)")
	fl.StringVar(&p.Gofer, "gofer", "", "gofer binary (default: sandboxctl-gofer beside this program)")
}

// Find returns the paths of both programs.
func (p *Flags) Find() (sentry, gofer string, err error) {
	if sentry, err = companion.Find(companion.SentryName, p.Sentry); err != nil {
		return "", "", err
	}
	gofer, err = companion.Find(companion.GoferName, p.Gofer)
	return sentry, gofer, err
}

// Program is what is known of one of them. With err it can't be used.
type Program struct {
	Path, GVisor string
	Err          error
}

// String says what it is, or why it can not be used.
func (p *Program) String() string {
	if p.Err != nil {
		return "not usable: " + show.Clean(p.Err.Error())
	}
	if filepath.Base(p.Path) == companion.ImageName {
		return p.Path
	}
	return "gVisor " + p.GVisor + ", " + p.Path
}

// Check asks the programs for their versions, at the same time: a sentry takes
// as long to start as everything else together.
func (p *Flags) Check(ctx context.Context) (sentry, gofer, image Program) {
	one := func(name, explicit string) (out Program) {
		if out.Path, out.Err = companion.Find(name, explicit); out.Err == nil {
			out.GVisor, out.Err = companion.Check(ctx, name, out.Path)
		}
		return out
	}
	var both sync.WaitGroup
	both.Go(func() { sentry = one(companion.SentryName, p.Sentry) })
	both.Go(func() { gofer = one(companion.GoferName, p.Gofer) })
	both.Go(func() { image = one(companion.ImageName, "") })
	both.Wait()
	if sentry.Err == nil && gofer.Err == nil {
		gofer.Err = companion.SameGVisor(sentry.GVisor, gofer.GVisor)
	}
	return sentry, gofer, image
}
