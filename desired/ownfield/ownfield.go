// SPDX-License-Identifier: Apache-2.0

// Package ownfield has the fields of a sandbox that its environment variables may have as
// values: what its manifest says, and the addresses that it has on networks, which are known
// when it is started.
package ownfield

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/yamldoc"
)

// Fields whose values are addresses.
const (
	ip  = "network.ip"
	ips = "network.ips"
)

// names are what a field may be, as errors show it.
var names = []string{
	"metadata.name", "metadata.labels['NAME']", "metadata.annotations['NAME']", "spec.hostname", ip, ip + "['NETWORK']", ips,
}

// foreign are what Kubernetes calls a field.
var foreign = map[string]string{"status.podIP": ip, "status.podIPs": ips}

// Manifest is what values are taken of, with defaults.
type Manifest struct {
	Name, Hostname      string
	Labels, Annotations map[string]string
	Network             *networks.Network
}

// Value is the value of a field, or what is wrong with its name. Of an address it is empty:
// the manifest does not say which one the sandbox gets.
func (m *Manifest) Value(field string) (string, error) {
	switch field {
	case "metadata.name":
		return m.Name, nil
	case "spec.hostname":
		return m.Hostname, nil
	case ip, ips:
		return "", m.onNetwork(field, "")
	}
	if network, ok := keyOf(field, ip); ok && network != "" {
		return "", m.onNetwork(ip, network)
	}
	for path, words := range map[string]map[string]string{"metadata.labels": m.Labels, "metadata.annotations": m.Annotations} {
		key, ok := keyOf(field, path)
		if !ok {
			continue
		}
		if value, ok := words[key]; ok {
			return value, nil
		}
		return "", fmt.Errorf("%s has no %q%s", path, yamldoc.Clip(key), meant(key, slices.Sorted(maps.Keys(words))))
	}
	hint := meant(field, names)
	if here := foreign[field]; here != "" {
		hint = fmt.Sprintf("; did you mean %q?", here)
	}
	return "", fmt.Errorf("expected one of %s, got %q%s", strings.Join(names, ", "), yamldoc.Clip(field), hint)
}

// onNetwork says why a sandbox has no address, or none on the network of a name.
func (m *Manifest) onNetwork(field, network string) error {
	switch {
	case m.Network.Mode != networks.Bridge:
		return fmt.Errorf("%s is an address on a network of sandboxctl, and network.mode is %s; set network: {mode: bridge}, or remove the variable", field, m.Network.Mode)
	case network != "" && !m.Network.Joins(network):
		return fmt.Errorf("network.join has no %q%s", yamldoc.Clip(network), meant(network, m.Network.Join))
	}
	return nil
}

func meant(word string, known []string) string {
	if n := yamldoc.Nearest(word, known); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}

// keyOf is KEY of PATH['KEY'], as Kubernetes writes it.
func keyOf(field, path string) (string, bool) {
	rest, ok := strings.CutPrefix(field, path+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// Place is where a sandbox is on one network; an address that is not valid is none.
type Place struct {
	Network            string
	Address4, Address6 netip.Addr
}

// Address is the value of a field of a checked manifest, of a sandbox that is at these
// places, in the order of network.join. ok is false if the field is no address.
func Address(field string, at []Place) (value string, ok bool) {
	network, named := keyOf(field, ip)
	if !named && field != ip && field != ips {
		return "", false
	}
	var all []string
	for _, p := range at {
		if named && p.Network != network {
			continue
		}
		for _, a := range []netip.Addr{p.Address4, p.Address6} {
			if a.IsValid() {
				all = append(all, a.String())
			}
		}
	}
	if field != ips {
		all = all[:min(len(all), 1)]
	}
	return strings.Join(all, ","), true
}
