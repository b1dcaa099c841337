// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"reflect"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/wire"
)

// What can't be ambient is not, however it is written down.
func TestAmbientCapabilities(t *testing.T) {
	t.Parallel()
	all := []string{"CAP_CHOWN", "CAP_KILL"}
	for _, c := range []struct{ in, want *specs.LinuxCapabilities }{
		{nil, &specs.LinuxCapabilities{}},
		{&specs.LinuxCapabilities{Bounding: all, Effective: all}, &specs.LinuxCapabilities{Bounding: all, Effective: all}},
		{&specs.LinuxCapabilities{Permitted: all, Ambient: all}, &specs.LinuxCapabilities{Permitted: all}},
		{&specs.LinuxCapabilities{Inheritable: all, Ambient: all}, &specs.LinuxCapabilities{Inheritable: all}},
		{
			&specs.LinuxCapabilities{Permitted: all, Inheritable: all[1:], Ambient: all},
			&specs.LinuxCapabilities{Permitted: all, Inheritable: all[1:], Ambient: all[1:]},
		},
	} {
		got := settable(c.in)
		if len(got.Ambient) == 0 {
			got.Ambient = nil
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %+v, expected %+v", c.in, got, c.want)
		}
	}
	caps := &specs.LinuxCapabilities{Bounding: all, Permitted: all, Ambient: all}
	st, err := fromContainer(container(func(c *specs.Spec) { c.Process.Capabilities = caps }))
	if err != nil || len(st.App().Spec.Process.Capabilities.Ambient) > 0 || len(st.App().Spec.Process.Capabilities.Bounding) != 2 || len(caps.Ambient) != 2 {
		t.Errorf("a container has %+v, %v", st.App().Spec.Process.Capabilities, err)
	}
	if got := st.Exec(&specs.Process{Capabilities: caps}).Capabilities; got.AmbientCaps != 0 || got.PermittedCaps != 1|1<<5 {
		t.Errorf("a command has %+v", got)
	}
}

// A command has raw sockets where the application may have them.
func TestRawSocketsOfCommands(t *testing.T) {
	t.Parallel()
	raw := []string{"CAP_NET_RAW"}
	p := &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: raw, Effective: raw, Permitted: raw}}
	for want, cfg := range map[wire.TaskCapabilities]*specs.Spec{
		{BoundingCaps: 1 << 13, EffectiveCaps: 1 << 13, PermittedCaps: 1 << 13}: container(func(c *specs.Spec) { c.Process.Capabilities = p.Capabilities }),
		{}: container(func(c *specs.Spec) {
			c.Process.Capabilities = p.Capabilities
			c.Linux.Namespaces = nil // the host's network
		}),
	} {
		st, err := fromContainer(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Exec(p).Capabilities; *got != want {
			t.Errorf("%+v, expected %+v", *got, want)
		}
	}
	st, err := fromContainer(container(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := st.Exec(p).Capabilities; got.EffectiveCaps != 0 {
		t.Errorf("%+v where the application has none", *got)
	}
}
