// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/bridge"
	"sandboxctl.dev/launcher/netns"
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
	return l.opts.Networks.Choose(rec, w)
}

// giveNames has the root of a sandbox on networks say what it is called, and who answers it.
// The directory that is returned, nil if there is none, must be open until the processes
// are started.
func (l *Launcher) giveNames(rec *actual.Record, sb *desired.Sandbox, st *setup.Setup) (*os.File, error) {
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

// attach makes the links of a sandbox whose processes are on record, and wait at their
// gates.
func (l *Launcher) attach(ctx context.Context, rec *actual.Record) error {
	if len(rec.Attachments) == 0 {
		return nil
	}
	ns, err := namespaceOf(rec)
	if err != nil {
		return err
	}
	defer ns.Close()
	return l.opts.Networks.Attach(ctx, rec, ns)
}

// namespaceOf opens the namespace of the sentry itself: nothing can have been put in the
// place of a path since.
func namespaceOf(rec *actual.Record) (*netns.Namespace, error) {
	p, err := process.Open(*rec.Sentry)
	if err != nil {
		return nil, fmt.Errorf("open sentry: %w", err)
	}
	defer p.Close()
	return netns.Of(p.FD())
}

// setNetwork tells the sentry what its network stack has: loopback, and the
// interfaces that are in its namespace by now.
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
	if err := l.lendNetwork(ctx, rec, st, c, restore); err != nil {
		return fmt.Errorf("set up network: %w", err)
	}
	return nil
}

func (l *Launcher) lendNetwork(ctx context.Context, rec *actual.Record, st *setup.Setup, c *sentry.Control, restore bool) error {
	ns, err := namespaceOf(rec)
	if err != nil {
		return err
	}
	defer ns.Close()
	cfg, err := ns.Scrape()
	if err != nil {
		return err
	}
	args, err := cfg.Args()
	if err != nil {
		return err
	}
	args.IsRestore = restore
	if !cfg.HasInterfaces() {
		if rec.App().OCI == nil {
			// It was ready a moment ago. Loopback alone would be all it ever has.
			return netns.NotReady(st.NetNS)
		}
		return c.SetNetwork(ctx, args)
	}
	if err := l.recordNetwork(rec, st, ns, cfg); err != nil {
		return err
	}
	if err := ns.Detach(cfg); err != nil {
		return err
	}
	sockets, err := ns.Sockets(cfg, &args)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range sockets {
			f.Close()
		}
	}()
	return c.SetNetwork(ctx, args, sockets...)
}

// recordNetwork writes down what is about to be taken out of a namespace that
// outlives the sandbox.
func (l *Launcher) recordNetwork(rec *actual.Record, st *setup.Setup, ns *netns.Namespace, cfg *netns.Config) error {
	if st.NetNS == "" {
		return nil
	}
	n := &actual.Network{Path: st.NetNS}
	var err error
	if n.Inode, err = ns.Inode(); err != nil {
		return err
	}
	if n.Config, err = json.Marshal(cfg); err != nil {
		return fmt.Errorf("encode network configuration: %w", err)
	}
	rec.Network = n
	if err := l.store.Put(rec); err != nil {
		return fmt.Errorf("record network: %w", err)
	}
	return nil
}

// restoreNetwork gives its addresses and routes back to a namespace that was passed through.
func restoreNetwork(rec *actual.Record) error {
	if rec.Network == nil || rec.Network.Path == "" {
		return nil
	}
	if boot, err := process.BootID(); err != nil || boot != rec.BootID {
		return err // namespaces do not survive a boot
	}
	return netns.PutBack(rec.Network.Path, rec.Network.Inode, rec.Network.Config)
}
