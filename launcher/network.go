// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/sentry"
	"sandboxctl.dev/launcher/setup"
	"sandboxctl.dev/launcher/wire"
)

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
	// The namespace of the process itself: nothing can have been put in the
	// place of the path since.
	p, err := actual.Open(*rec.Sentry)
	if err != nil {
		return fmt.Errorf("open sentry: %w", err)
	}
	defer p.Close()
	ns, err := netns.Of(p.FD())
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
			return errors.New(notReady(st.NetNS))
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

// LookAtNetwork returns the inode of the network namespace of a name, 0 if there is
// none, and why no sandbox can be started in it, "" if one can.
func LookAtNetwork(name string) (inode uint64, why string) {
	path := desired.NetnsPath(name)
	ns, err := netns.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, "network namespace " + name + " does not exist"
	case errors.Is(err, netns.ErrNotNamespace):
		return 0, "" // the start is refused, for good
	case err != nil:
		return 0, err.Error()
	}
	defer ns.Close()
	if inode, err = ns.Inode(); err != nil {
		return 0, err.Error()
	}
	if own, err := ns.IsOwn(); err == nil && own {
		return inode, "" // refused as well
	}
	cfg, err := ns.Scrape()
	switch {
	case err != nil:
		return inode, err.Error()
	case !cfg.HasInterfaces():
		return inode, notReady(name)
	}
	return inode, ""
}

func notReady(name string) string {
	return "no interface of network namespace " + name + " is up and has an address"
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

// restoreNetwork puts back what a sandbox was lent. A namespace that is gone has
// nothing to put it into.
func restoreNetwork(rec *actual.Record) error {
	if rec.Network == nil || rec.Network.Path == "" {
		return nil
	}
	if boot, err := actual.BootID(); err != nil || boot != rec.BootID {
		return err // namespaces do not survive a boot
	}
	ns, err := netns.Open(rec.Network.Path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, netns.ErrNotNamespace) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	if ino, err := ns.Inode(); err != nil || ino != rec.Network.Inode {
		return err // another one by now
	}
	var cfg netns.Config
	if err := json.Unmarshal(rec.Network.Config, &cfg); err != nil {
		return fmt.Errorf("decode network configuration: %w", err)
	}
	if err := ns.Restore(&cfg); err != nil {
		return fmt.Errorf("put network back: %w", err)
	}
	return nil
}
