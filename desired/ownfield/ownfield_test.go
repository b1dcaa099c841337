// SPDX-License-Identifier: Apache-2.0

package ownfield

import (
	"net/netip"
	"strings"
	"testing"

	"sandboxctl.dev/desired/networks"
)

func TestValue(t *testing.T) {
	t.Parallel()
	m := &Manifest{
		Name: "web", Hostname: "host", Labels: map[string]string{"app": "shop"}, Annotations: map[string]string{"a.b/c": "note"},
		Network: &networks.Network{Mode: networks.Bridge, Join: []string{"front", "back"}},
	}
	for field, want := range map[string]string{
		"metadata.name": "web", "spec.hostname": "host", "metadata.labels['app']": "shop", "metadata.annotations['a.b/c']": "note",
		"network.ip": "", "network.ips": "", "network.ip['back']": "",
	} {
		if got, err := m.Value(field); err != nil || got != want {
			t.Errorf("%s: %q %v, expected %q", field, got, err, want)
		}
	}
	for field, want := range map[string]string{
		"metadata.labels['ap']": `metadata.labels has no "ap"; did you mean "app"?`,
		"network.ip['bak']":     `network.join has no "bak"; did you mean "back"?`,
		"network.ip['']":        `expected one of metadata.name`,
		"network.ipp":           `did you mean "network.ip"?`,
		"status.podIP":          `did you mean "network.ip"?`,
		"status.podIPs":         `did you mean "network.ips"?`,
		"network.ips['back']":   "expected one of metadata.name",
		"metadata.labels.app":   "expected one of metadata.name",
		"":                      "expected one of metadata.name",
	} {
		if _, err := m.Value(field); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %s", field, err, want)
		}
	}
	for _, mode := range []string{networks.None, networks.Host, networks.Netns} {
		m.Network = &networks.Network{Mode: mode}
		for _, field := range []string{"network.ip", "network.ips", "network.ip['back']"} {
			if _, err := m.Value(field); err == nil || !strings.Contains(err.Error(), "network.mode is "+mode) {
				t.Errorf("%s with mode %s: %v", field, mode, err)
			}
		}
	}
}

func TestAddress(t *testing.T) {
	t.Parallel()
	four, six := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")
	at := []Place{{"front", four, six}, {"back", netip.Addr{}, netip.MustParseAddr("fd01::2")}}
	for field, want := range map[string]string{
		"network.ip": "10.1.0.2", "network.ips": "10.1.0.2,fd00::2,fd01::2", "network.ip['back']": "fd01::2", "network.ip['front']": "10.1.0.2",
	} {
		if got, ok := Address(field, at); !ok || got != want {
			t.Errorf("%s: %q %v, expected %q", field, got, ok, want)
		}
	}
	if got, ok := Address("network.ip", at[1:]); !ok || got != "fd01::2" {
		t.Errorf("without IPv4: %q", got)
	}
	for _, field := range []string{"metadata.name", "network", "network.ip['"} {
		if got, ok := Address(field, at); ok {
			t.Errorf("%q is the address %q", field, got)
		}
	}
}
