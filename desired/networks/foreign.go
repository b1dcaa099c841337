// SPDX-License-Identifier: Apache-2.0

package networks

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
)

// Foreign are what Compose and Kubernetes call a field of a type here.
var Foreign = map[reflect.Type]map[string]string{
	reflect.TypeFor[Network](): {
		"networks": "join: [front]", "network": "join: [front]", "expose": "ports: [{containerPort: 80}]", "links": "the name of the other sandbox, which joins the same network",
		"extra_hosts": "extraHosts: [{ip: 10.0.0.5, names: [registry]}]", "hostAliases": "extraHosts: [{ip: 10.0.0.5, names: [registry]}]",
		"dns_search": "dns: {search: [corp.example]}", "dns_opt": "dns: {options: [\"ndots:2\"]}", "ipv4_address": "address", "ipv6_address": "address", "ip": "address",
	},
	reflect.TypeFor[Port]():      {"target": "containerPort", "published": "hostPort", "host_ip": "hostIP", "port": "containerPort"},
	reflect.TypeFor[DNS]():       {"nameservers": "servers", "searches": "search", "opt": "options"},
	reflect.TypeFor[ExtraHost](): {"hostnames": "names", "hostname": "names"},
	reflect.TypeFor[Declared]():  {"ipam": "subnet: 10.44.0.0/24", "enable_ipv6": "ipv6", "subnets": "subnet and subnet6"},
}

// OfSandbox are what they call a field of spec.network, where it is a field of the spec.
var OfSandbox = map[string]string{
	"ports": "network: {ports: [{containerPort: 80, hostPort: 8080}]}", "expose": "network: {ports: [{containerPort: 80}]}",
	"links":    "network: {join: [default]} in both: each finds the other by its name",
	"networks": "network: {join: [front]}, and a Network document named front", "extra_hosts": "network: {extraHosts: [{ip: 10.0.0.5, names: [registry]}]}",
	"hostAliases": "network: {extraHosts: [{ip: 10.0.0.5, names: [registry]}]}", "dns": "network: {dns: {servers: [9.9.9.9]}}", "dnsConfig": "network: {dns: {servers: [9.9.9.9]}}",
	"dns_search": "network: {dns: {search: [corp.example]}}", "dns_opt": "network: {dns: {options: [\"ndots:2\"]}}",
}

// Required are the fields a type can't do without, with what is expected of each.
var Required = map[reflect.Type]map[string]string{
	reflect.TypeFor[ExtraHost](): {"ip": "an address", "names": "a list of names"},
}

// Examples are a value of YAML for each type, on one line.
var Examples = map[reflect.Type]string{
	reflect.TypeFor[Network]():   `{ports: [{containerPort: 80, hostPort: 8080}]}`,
	reflect.TypeFor[Port]():      `{containerPort: 80, hostPort: 8080}`,
	reflect.TypeFor[Bandwidth](): `{egress: 10Mbit, ingress: 10Mbit}`,
	reflect.TypeFor[Reach]():     `{default: deny, allow: ["10.0.0.0/8"]}`,
	reflect.TypeFor[DNS]():       `{servers: [9.9.9.9]}`,
	reflect.TypeFor[ExtraHost](): `{ip: 10.0.0.5, names: [registry]}`,
	reflect.TypeFor[Declared]():  `{subnet: 10.44.0.0/24}`,
}

// ListExamples are those of lists of texts, by field.
var ListExamples = map[string]string{
	"cni":  `[lab, dmz]`,
	"join": `[front, back]`, "aliases": `[database]`, "address": `10.210.0.9`, "allow": `["10.0.0.0/8", "sandbox:db"]`,
	"servers": `[9.9.9.9]`, "search": `[corp.example]`, "names": `[registry]`,
}

// Instead is what to write for a text of Compose that stands for an object here, "" if the
// text means nothing there either.
var Instead = map[reflect.Type]func(text string) string{
	reflect.TypeFor[Port]():      portInstead,
	reflect.TypeFor[ExtraHost](): extraHostInstead,
}

// portInstead reads [ADDRESS:][HOST:]PORT[/PROTOCOL], where a port may be a range.
func portInstead(text string) string {
	text, protocol, _ := strings.Cut(text, "/")
	parts, ip := strings.Split(text, ":"), ""
	if i := strings.LastIndexByte(text, ']'); i > 0 && text[0] == '[' {
		ip, parts = text[1:i], strings.Split(strings.TrimPrefix(text[i+1:], ":"), ":")
	} else if len(parts) == 3 {
		ip, parts = parts[0], parts[1:]
	}
	if len(parts) > 2 {
		return ""
	}
	var fields []string
	inside := parts[len(parts)-1]
	if _, ok := parsePort(inside); ok {
		fields = append(fields, "containerPort: "+inside)
	} else if _, _, err := parseRange(inside); err == nil {
		fields = append(fields, "range: "+inside)
	} else {
		return ""
	}
	if len(parts) == 2 {
		host, _, _ := strings.Cut(parts[0], "-")
		if _, ok := parsePort(host); !ok {
			return ""
		}
		fields = append(fields, "hostPort: "+host)
	}
	if a, err := netip.ParseAddr(ip); err == nil && !a.IsUnspecified() {
		fields = append(fields, fmt.Sprintf("hostIP: %q", a))
	}
	if strings.EqualFold(protocol, UDP) {
		fields = append(fields, "protocol: UDP")
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

// extraHostInstead reads NAME:ADDRESS or NAME=ADDRESS.
func extraHostInstead(text string) string {
	i := strings.IndexAny(text, ":=")
	if i < 0 {
		return ""
	}
	name, err := ParseName(text[:i])
	a, bad := netip.ParseAddr(strings.Trim(text[i+1:], "[]"))
	if err != nil || bad != nil {
		return ""
	}
	return fmt.Sprintf("{ip: %q, names: [%s]}", a, name)
}
