// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	cnitypes "github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/version"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/launcher/netns"
)

// portMappings is the capability of plugins that publish ports.
const portMappings = "portMappings"

// mapping is an element of its argument.
type mapping struct {
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// Intend is what goes on record before anything is done for the start of a sandbox. All that
// its networks need of this host is there.
func Intend(rec *actual.Record, n *networks.Network, p *hostpolicy.CNIPolicy) ([]actual.CNI, error) {
	published, publisher := n.Published(), -1
	all := make([]actual.CNI, len(n.CNI))
	var without []string
	for i, name := range n.CNI {
		found, err := find(p, name)
		if err == nil {
			err = programsIn(p).all(found.NetworkConfigList)
		}
		if err != nil {
			return nil, fmt.Errorf("spec.network.cni: %w", err)
		}
		all[i] = actual.CNI{
			Network: found.Name, Config: found.Bytes, Interface: fmt.Sprintf("eth%d", i),
			// No two runs have an id: what is left of one is never taken for the other's.
			ContainerID: fmt.Sprintf("%s-%d", rec.UID, rec.Attempt), Netns: netns.Dir + "/cni-" + rec.UID,
		}
		if publisher < 0 && found.can(portMappings) {
			publisher = i
		}
		without = append(without, fmt.Sprintf("the network %s of CNI publishes no ports: no plugin in %s has the capability %s", found.Name, found.file, portMappings))
	}
	if len(published) > 0 {
		if publisher < 0 {
			return nil, operation.Precondition(fmt.Errorf("spec.network.ports: %s; leave hostPort out, or have the administrator add the plugin portmap to it", strings.Join(without, "; ")))
		}
		// One of them: the others would take the same ports of the host.
		var err error
		if all[publisher].Ports, err = json.Marshal(mappings(published)); err != nil {
			return nil, fmt.Errorf("encode ports: %w", err)
		}
	}
	return all, nil
}

// Of are the networks of a record, in the order of the manifest.
func Of(rec *actual.Record) []actual.CNI {
	if rec.CNI == nil {
		return nil
	}
	return append([]actual.CNI{*rec.CNI}, rec.MoreCNI...)
}

// Put has a record say them.
func Put(rec *actual.Record, all []actual.CNI) {
	if rec.CNI, rec.MoreCNI = nil, nil; len(all) > 0 {
		first := all[0]
		rec.CNI, rec.MoreCNI = &first, slices.Clone(all[1:])
	}
}

// mappings are published ports as plugins take them: one by one.
func mappings(published []networks.Port) (out []mapping) {
	for i := range published {
		p := &published[i]
		first, count := p.First()
		for n := range uint16(count) {
			out = append(out, mapping{p.HostPort + n, first + n, strings.ToLower(p.Protocol), p.HostIP})
		}
	}
	return out
}

// Add makes the namespace of a sandbox and has plugins make its networks, one after the other.
// After each of them record is called with what is to be on record from then on, which another
// Add or Delete gets. On error something may be left, for Delete.
func Add(ctx context.Context, all []actual.CNI, p *hostpolicy.CNIPolicy, record func([]actual.CNI) error) error {
	if err := netns.Pin(all[0].Netns); err != nil {
		return err
	}
	for i := range all {
		all = slices.Clone(all) // readers of what is on record have those before
		if err := add(ctx, &all[i], p); err != nil {
			return err
		}
		if err := record(all); err != nil {
			return err
		}
	}
	return nil
}

// add has plugins make one network, and notes what they say of it.
func add(ctx context.Context, c *actual.CNI, p *hostpolicy.CNIPolicy) error {
	var last cnitypes.Result
	err := call(ctx, "ADD", c, p, func(r *runner, list *libcni.NetworkConfigList, args *arguments) error {
		for _, plugin := range list.Plugins {
			stdin, err := input(list, plugin, last, c)
			if err != nil {
				return err
			}
			path, err := r.find(plugin.Network.Type)
			if err == nil {
				err = crashpoint.Do(crashpoint.CNIAdd, func() (err error) {
					last, err = invoke.ExecPluginWithResult(ctx, path, stdin, args, r)
					return err
				})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.Result, err = json.Marshal(last); err != nil {
		return fmt.Errorf("encode the result of the network %s of CNI: %w", c.Network, err)
	}
	if _, err := resultOf(c); err != nil {
		return fmt.Errorf("the network %s of CNI: %w", c.Network, err)
	}
	if err := check(ctx, c, p); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		c.CheckFails = untrusted.Line(err.Error(), 1000)
	}
	return nil
}

// Delete has plugins undo what they have made, or may have made, the last network first, and
// removes the namespace. It is safe to repeat, and to call when all is gone already: after a
// crash, and after a boot. All plugins are asked, also when one fails: what can be given back is.
func Delete(ctx context.Context, all []actual.CNI, p *hostpolicy.CNIPolicy) error {
	path := all[0].Netns
	there, err := reachable(path)
	if err != nil {
		return err
	}
	var errs []error
	for _, one := range slices.Backward(all) {
		if !there {
			one.Netns = ""
		}
		err, cause := del(ctx, &one, p), context.Cause(ctx)
		errs = append(errs, cmp.Or(err, cause))
		if cause != nil {
			break // who was not told would take those that are left for undone, and never try again
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return netns.Unpin(path)
}

// del has plugins undo one network.
func del(ctx context.Context, c *actual.CNI, p *hostpolicy.CNIPolicy) error {
	return call(ctx, "DEL", c, p, func(r *runner, list *libcni.NetworkConfigList, args *arguments) error {
		var errs []error
		for _, plugin := range slices.Backward(list.Plugins) {
			stdin, err := input(list, plugin, previous(list, c), c)
			if err != nil {
				return err
			}
			path, err := r.find(plugin.Network.Type)
			if err == nil {
				err = undo(ctx, path, stdin, args, r)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// undo runs one plugin. It is a function of its own since Go leaves crash points in the body of
// a loop over a function, also where they do nothing.
func undo(ctx context.Context, plugin string, stdin []byte, args *arguments, r *runner) error {
	return crashpoint.Do(crashpoint.CNIDel, func() error { return invoke.ExecPluginWithoutResult(ctx, plugin, stdin, args, r) })
}

// reachable says whether there is a namespace that plugins are told of for DEL: there is none
// after a boot, or a crash between two steps of Pin or of Unpin. That leaves a file there, which
// bridge, for one, would fail on for ever, before it gives addresses back.
func reachable(path string) (bool, error) {
	ns, err := netns.Open(path)
	if err == nil {
		ns.Close()
		return true, nil
	}
	if errors.Is(err, netns.ErrNotNamespace) {
		err = netns.Unpin(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return false, nil
}

// Check asks plugins whether the networks of a sandbox that runs are as they have made them, but
// those that have found fault with what they had just made.
func Check(ctx context.Context, all []actual.CNI, p *hostpolicy.CNIPolicy) error {
	for i := range all {
		if all[i].CheckFails != "" {
			continue
		}
		if err := check(ctx, &all[i], p); err != nil {
			return err
		}
	}
	return nil
}

func check(ctx context.Context, c *actual.CNI, p *hostpolicy.CNIPolicy) error {
	return call(ctx, "CHECK", c, p, func(r *runner, list *libcni.NetworkConfigList, args *arguments) error {
		prev := previous(list, c)
		if list.DisableCheck || prev == nil {
			return nil // it knows no CHECK, or is not to be asked
		}
		for _, plugin := range list.Plugins {
			stdin, err := input(list, plugin, prev, c)
			if err != nil {
				return err
			}
			path, err := r.find(plugin.Network.Type)
			if err == nil {
				err = invoke.ExecPluginWithoutResult(ctx, path, stdin, args, r)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// call has do call plugins with the configuration that is on record.
func call(ctx context.Context, command string, c *actual.CNI, p *hostpolicy.CNIPolicy, do func(*runner, *libcni.NetworkConfigList, *arguments) error) error {
	list, err := parse(c.Config)
	if err != nil {
		return fmt.Errorf("the network %s of CNI, as it is on record: %w", c.Network, err)
	}
	r := &runner{programs: programsIn(p), timeout: p.PluginTime()}
	if r.busy, err = lock(ctx, c.Netns, r.timeout); err != nil {
		return err
	}
	if r.busy != nil {
		defer unlock(r.busy)
	}
	if err := do(r, list, &arguments{command, c, r.path()}); err != nil {
		return fmt.Errorf("%s of the network %s of CNI: %w", command, c.Network, err)
	}
	return nil
}

// input is the configuration of a plugin as it is given to it: with the name and version of
// the list, the result of the plugin before, and arguments of its capabilities.
func input(list *libcni.NetworkConfigList, plugin *libcni.PluginConfig, prev cnitypes.Result, c *actual.CNI) ([]byte, error) {
	values := map[string]any{"name": list.Name, "cniVersion": list.CNIVersion}
	if prev != nil {
		values["prevResult"] = prev
	}
	if len(c.Ports) > 0 && plugin.Network.Capabilities[portMappings] {
		values["runtimeConfig"] = map[string]any{portMappings: c.Ports}
	}
	conf, err := libcni.InjectConf(plugin, values)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", plugin.Network.Type, err)
	}
	return conf.Bytes, nil
}

// previous is what ADD has returned, for plugins that take it back: nil before version 0.4.0,
// which has no CHECK either, and where ADD has not returned.
func previous(list *libcni.NetworkConfigList, c *actual.CNI) cnitypes.Result {
	if since, err := version.GreaterThanOrEqualTo(list.CNIVersion, "0.4.0"); err != nil || !since || len(c.Result) == 0 {
		return nil
	}
	r, err := create.CreateFromBytes(c.Result)
	if err == nil {
		r, err = r.GetAsVersion(list.CNIVersion)
	}
	if err != nil {
		return nil // DEL must do without
	}
	return r
}
