// SPDX-License-Identifier: Apache-2.0

package passthrough

import (
	"context"
	"encoding/json"
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

// Lend tells the sentry what the interfaces in its namespace have, and gives it packet
// sockets on them. restore says that it gets them for the state of a checkpoint.
func Lend(ctx context.Context, store *actual.Store, rec *actual.Record, st *setup.Setup, c *sentry.Control, restore bool) error {
	ns, err := process.Through(*rec.Sentry, netns.Of)
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
	if err := record(store, rec, st, ns, cfg); err != nil {
		return err
	}
	if err := ns.Detach(cfg); err != nil {
		return err
	}
	return give(ctx, ns, cfg, &args, c)
}

// Give is Lend of links that were made for the sandbox alone: cfg is what its network stack has of
// them, and the kernel at that end was told nothing.
func Give(ctx context.Context, rec *actual.Record, cfg *netns.Config, c *sentry.Control, restore bool) error {
	ns, err := process.Through(*rec.Sentry, netns.Of)
	if err != nil {
		return err
	}
	defer ns.Close()
	args, err := cfg.Args()
	if err != nil {
		return err
	}
	args.IsRestore = restore
	return give(ctx, ns, cfg, &args, c)
}

// give opens the packet sockets of all links, and hands them over.
func give(ctx context.Context, ns *netns.Namespace, cfg *netns.Config, args *wire.NetworkArgs, c *sentry.Control) error {
	sockets, err := ns.Sockets(cfg, args)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range sockets {
			f.Close()
		}
	}()
	return c.SetNetwork(ctx, *args, sockets...)
}

// record writes down what is about to be taken out of a namespace that
// outlives the sandbox.
func record(store *actual.Store, rec *actual.Record, st *setup.Setup, ns *netns.Namespace, cfg *netns.Config) error {
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
	if err := store.Put(rec); err != nil {
		return fmt.Errorf("record network: %w", err)
	}
	return nil
}

// Restore gives its addresses and routes back to a namespace that was passed through.
func Restore(rec *actual.Record) error {
	if rec.Network == nil || rec.Network.Path == "" {
		return nil
	}
	if boot, err := process.BootID(); err != nil || boot != rec.BootID {
		return err // namespaces do not survive a boot
	}
	return netns.PutBack(rec.Network.Path, rec.Network.Inode, rec.Network.Config)
}
