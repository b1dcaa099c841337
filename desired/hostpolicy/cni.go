// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/yamldoc"
)

// DefaultCNIConfigDir is where networks of CNI are configured.
const DefaultCNIConfigDir = "/etc/cni/net.d"

// DefaultCNIPluginDirs are those of CNI itself, of Debian, and of Fedora.
var DefaultCNIPluginDirs = []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}

// DefaultCNITimeout is how long one plugin may take.
const DefaultCNITimeout = 30 * time.Second

// AnyCNI in CNIPolicy.Networks is any network.
const AnyCNI = "*"

// CNIPolicy says which networks of CNI sandboxes may be on, and where they are configured.
type CNIPolicy struct {
	// Names for `network.cni`; `"*"` is any. Their plugins run as root on the host. Default:
	// none.
	Networks []string `json:"networks,omitempty"`
	// The directory with the files that configure networks. It and the files must belong to
	// root and be written by nobody else.
	ConfigDir string `json:"configDir,omitempty"`
	// The directories with plugins, in the order in which they are looked for. One that others
	// than root may write, or a file in it, is not used. Default: `/opt/cni/bin`, `/usr/lib/cni`,
	// `/usr/libexec/cni`.
	PluginDirs []string `json:"pluginDirs,omitempty"`
	// How long one plugin may take, 1s to 10m; then it is killed. Default: `30s`.
	Timeout *scalar.Duration `json:"timeout,omitempty"`
}

// fill gives what was left out its default.
func (c *CNIPolicy) fill() {
	c.ConfigDir = cmp.Or(c.ConfigDir, DefaultCNIConfigDir)
	if c.PluginDirs == nil {
		c.PluginDirs = DefaultCNIPluginDirs
	}
	c.Timeout = cmp.Or(c.Timeout, new(scalar.Duration(DefaultCNITimeout)))
}

// PluginTime is how long one plugin may take.
func (c *CNIPolicy) PluginTime() time.Duration {
	if c.Timeout == nil {
		return DefaultCNITimeout
	}
	return time.Duration(*c.Timeout)
}

// cni checks what a policy says of networks of CNI.
func (v *validator) cni(c *CNIPolicy) {
	for i, name := range c.Networks {
		if name != AnyCNI {
			networks.CheckCNIName(fmt.Sprintf("network.cni.networks[%d]", i), name, v.Add)
		}
	}
	if c.ConfigDir != "" {
		v.HostPath("network.cni.configDir", c.ConfigDir)
	}
	for i, dir := range c.PluginDirs {
		v.HostPath(fmt.Sprintf("network.cni.pluginDirs[%d]", i), dir)
	}
	v.Duration("network.cni.timeout", c.Timeout, 10*time.Minute)
	if c.Timeout != nil && *c.Timeout >= 0 && time.Duration(*c.Timeout) < time.Second {
		v.Add("network.cni.timeout", "expected at least 1s, got %s", time.Duration(*c.Timeout))
	}
}

// cni judges the network of a sandbox, and the ports that plugins are to publish.
func (v *check) cni(n *networks.Network) {
	allowed := v.p.Network.CNI.Networks
	for i, name := range n.CNI {
		if slices.Contains(allowed, AnyCNI) || slices.Contains(allowed, name) {
			continue
		}
		at := "spec.network.cni"
		if len(n.CNI) > 1 {
			at = fmt.Sprintf("%s[%d]", at, i)
		}
		v.Add(at, "%s does not allow the network %q of CNI; allowed: %s; use another one, or have the administrator add it to network.cni.networks", v.p.where(), yamldoc.Clip(name), listed(allowed))
	}
	for i := range n.Ports {
		v.published(fmt.Sprintf("spec.network.ports[%d]", i), &n.Ports[i])
	}
}

// startsFrom returns the directory of CNI that is at, below or above a path of the host, "" if
// none is, or no sandbox may be on a network of CNI: who writes there chooses what runs as
// root at the next start.
func (c *CNIPolicy) startsFrom(hostPath string) string {
	for _, dir := range c.dirs() {
		if pathWithin(hostPath, dir) || pathWithin(dir, hostPath) {
			return dir
		}
	}
	return ""
}

// dirs are the directories of CNI, none if no sandbox may be on a network of CNI.
func (c *CNIPolicy) dirs() []string {
	if len(c.Networks) == 0 {
		return nil
	}
	return append([]string{c.ConfigDir}, c.PluginDirs...)
}
