// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	"sandboxctl.dev/client/protocol"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/desired/networks"
)

// userPrefix is how sandboxes of others than root are named: they can't take the place, or the
// name on a network, of one that has a manifest.
const userPrefix = "run-"

func refusef(format string, args ...any) error {
	return protocol.Failf(protocol.KindRefused, format, args...)
}

// check refuses a request that makes no sense, from anyone. What its sandbox may be is
// checked with its manifest.
func check(r *protocol.Request) error {
	switch r.Op {
	case protocol.OpHello:
		if r.Name != "" {
			return refusef("name: expected none for %s", r.Op)
		}
	case protocol.OpList:
	case protocol.OpRemove, protocol.OpExec:
		if r.Name == "" {
			return refusef("name: expected that of a sandbox")
		}
	case protocol.OpRun:
		if r.Sandbox == nil {
			return refusef("sandbox: is missing")
		}
		if err := checkPaths(r.Sandbox); err != nil {
			return err
		}
	default:
		return refusef("op: expected one of hello, run, exec, list, remove, got %q", r.Op)
	}
	if r.Name != "" && !desired.ValidName(r.Name) {
		return refusef("name: expected small letters, digits and -, at most 63, got %q", r.Name)
	}
	if runs := r.Op == protocol.OpRun || r.Op == protocol.OpExec; runs != (r.Command != nil) || !runs && r.Timeout != 0 || r.Op != protocol.OpRun && r.Sandbox != nil {
		return refusef("%s: expected a command and a timeout for run and exec, a sandbox for run, and none of them for others", r.Op)
	}
	if r.Timeout < 0 {
		return refusef("timeout: expected 0s or more, got %s", r.Timeout)
	}
	if r.Command == nil {
		return nil
	}
	return checkCommand(r.Command)
}

// checkPaths refuses paths that would be looked for where the daemon was started.
func checkPaths(s *protocol.Sandbox) error {
	if s.RootDir != "" && !filepath.IsAbs(s.RootDir) {
		return refusef("rootDir: expected an absolute path, got %q", s.RootDir)
	}
	for _, v := range s.Volumes {
		if source, _, _ := strings.Cut(v, ":"); strings.Contains(source, "/") && !filepath.IsAbs(source) {
			return refusef("volumes: expected the name of a volume or an absolute path, got %q", source)
		}
	}
	return nil
}

func checkCommand(c *protocol.Command) error {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return refusef("command: expected a command")
	}
	for _, text := range slices.Concat(c.Args, c.Env, []string{c.Dir}) {
		if strings.ContainsRune(text, 0) {
			return refusef("command: there is a NUL in an argument, a variable or the directory")
		}
	}
	for _, e := range c.Env {
		if strings.Index(e, "=") < 1 {
			return refusef("env: expected NAME=VALUE, got %q", e)
		}
	}
	if c.Dir != "" && !filepath.IsAbs(c.Dir) {
		return refusef("dir: expected an absolute path in the sandbox, got %q", c.Dir)
	}
	return nil
}

// judge refuses what a user may not ask for. Root may ask for whatever a manifest may; members of
// the group for what reaches nothing of the host and of other sandboxes, unless the policy names it
// for clients. Both are then judged as manifests are.
func (p *peer) judge(r *protocol.Request, policy *hostpolicy.ClientsPolicy) error {
	if p.root() {
		return nil
	}
	switch most := policy.Time(); {
	case r.Op != protocol.OpRun && r.Op != protocol.OpExec:
		return nil
	case r.Timeout > most:
		return refusef("timeout: the host policy allows %s to clients (clients.maxTime), got %s", most, r.Timeout)
	case r.Timeout == 0:
		r.Timeout = most
	}
	if r.Op == protocol.OpExec {
		return nil
	}
	if r.Name != "" && !strings.HasPrefix(r.Name, userPrefix) {
		return refusef("name: expected one that begins with %q, got %q: others are for root", userPrefix, r.Name)
	}
	if r.Sandbox.Image != "" && !policy.MayFetch(r.Sandbox.Image) {
		// What is fetched stays: one image after the other would fill the store.
		p.pull = imageref.PullNever
	}
	return judgeSandbox(r.Sandbox, policy)
}

func judgeSandbox(s *protocol.Sandbox, policy *hostpolicy.ClientsPolicy) error {
	if s.RootDir != "" {
		return refusef("rootDir: directories of the host are for root; use an image, or the view of the host's programs")
	}
	for _, scheme := range []string{"oci:", "archive:"} {
		if strings.HasPrefix(s.Image, scheme) {
			return refusef("image: files of the host are for root; have the administrator import it, and use local:NAME")
		}
	}
	for _, v := range s.Volumes {
		source, _, _ := strings.Cut(v, ":")
		if strings.Contains(source, "/") {
			return refusef("volumes: paths of the host are for root, got %q; have the administrator add a named volume to clients.volumes of the host policy", source)
		}
		if !slices.Contains(policy.Volumes, source) {
			return refusef("volumes: the host policy does not allow the volume %q to clients; have the administrator add it to clients.volumes", source)
		}
	}
	network := s.Network
	if len(s.Egress) > 0 { // as of run: without a name it is the default one
		network = cmp.Or(network, networks.DefaultName)
	}
	if network == networks.Host {
		return refusef("network: the host's network is for root")
	}
	if network != "" && network != networks.None && !slices.Contains(policy.Networks, network) {
		return refusef("network: the host policy does not allow %q to clients; have the administrator add it to clients.networks", network)
	}
	return nil
}
