// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"fmt"
	"os"
	"slices"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/bridge"
	"sandboxctl.dev/launcher/cni"
	"sandboxctl.dev/launcher/links"
	"sandboxctl.dev/launcher/passthrough"
	"sandboxctl.dev/launcher/proc"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

// join gives a record its addresses on the networks that its manifest joins. They stay its
// own until done is called, when the record says them.
func (l *Launcher) join(rec *actual.Record, e *desired.Entry, policy *hostpolicy.Policy) (done func(), err error) {
	n := &e.Sandbox.Spec.Network
	if n.Mode == networks.Bridge && l.opts.Networks == nil {
		return func() {}, operation.Permanentf("spec.network.mode: only the daemon attaches sandboxes to networks")
	}
	w := &bridge.Wanted{Network: n, Declared: e.Objects.Network}
	w.Pools.V4, w.Pools.V6 = policy.Network.Pools()
	done, err = l.opts.Networks.Choose(rec, w)
	if err == nil && n.Mode == networks.CNI {
		var all []actual.CNI
		all, err = cni.Intend(rec, n, &policy.Network.CNI)
		cni.Put(rec, all)
	}
	return done, err
}

// giveNames has the root of a sandbox on networks say what it is called, and who answers it.
// The directory that is returned, nil if there is none, must be open until the processes
// are started.
func (l *Launcher) giveNames(rec *actual.Record, sb *desired.Sandbox, st *setup.Setup) (*os.File, error) {
	if rec.CNI != nil {
		st.App().Root.ResolvConf = cni.ResolvConf(cni.Of(rec))
	}
	if len(rec.Attachments) == 0 {
		return nil, nil
	}
	st.App().Root.ResolvConf = bridge.ResolvConf(rec, &sb.Spec.Network)
	i := slices.IndexFunc(st.App().Volumes, func(s setup.Source) bool { return s.Names })
	if i < 0 {
		return nil, nil
	}
	dir, err := l.opts.Networks.ShowNames(rec)
	if err == nil {
		st.App().Volumes[i].Dir = dir
	}
	return dir, err
}

// plug has the plugins of CNI set up the network of a sandbox that is on one, in a namespace
// that is made for it. What they are asked for is on record.
func (l *Launcher) plug(ctx context.Context, rec *actual.Record, st *setup.Setup) error {
	if rec.CNI == nil {
		return nil
	}
	st.NetNS = rec.CNI.Netns
	defer operation.WaitsAfter(ctx, proc.DyingSlowly)() // as a rule plugins take no time
	return cni.Add(ctx, cni.Of(rec), &st.Policy.Network.CNI, func(made []actual.CNI) error {
		cni.Put(rec, made)
		if err := l.store.Put(rec); err != nil {
			return fmt.Errorf("record network: %w", err)
		}
		return nil
	})
}

// unplug has them undo it, as the host policy says by now where they are. It is safe to
// repeat: the record says that there is nothing to undo when it says that the sandbox has ended.
func (l *Launcher) unplug(ctx context.Context, rec *actual.Record) error {
	if rec.CNI == nil {
		return nil
	}
	policy, err := l.opts.Policy()
	if err != nil {
		return err
	}
	defer operation.WaitsAfter(ctx, proc.DyingSlowly)()
	return cni.Delete(ctx, cni.Of(rec), &policy.Network.CNI)
}

// setNetwork tells the sentry what its network stack has: loopback, and the interfaces that are
// in its namespace by now, or its links.
// restore says that it gets them for the state of a checkpoint.
func (l *Launcher) setNetwork(ctx context.Context, rec *actual.Record, st *setup.Setup, c *sentry.Control, restore bool) error {
	if st.HostNetwork {
		return nil
	}
	if !st.Passthrough {
		args := wire.Loopback()
		args.IsRestore = restore
		return c.SetNetwork(ctx, args)
	}
	var err error
	if len(rec.Attachments) > 0 {
		err = passthrough.Give(ctx, rec, links.Config(bridge.Links(rec)), c, restore)
	} else {
		err = passthrough.Lend(ctx, l.store, rec, st, c, restore)
	}
	if err != nil {
		return fmt.Errorf("set up network: %w", err)
	}
	return nil
}
