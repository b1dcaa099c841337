// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/desired/yamldoc"
)

const (
	// maxConfig bounds the configuration of a network: it goes on record.
	maxConfig = 64 << 10
	// maxFiles and maxPlugins bound what is read of a directory and what is run for a network.
	maxFiles   = 1000
	maxPlugins = 16
)

// network is a network as it is configured.
type network struct {
	*libcni.NetworkConfigList
	file string // where, for messages
}

// find looks for the configuration of a network, in the order of names of files. A file that
// can't be used is none of the network that is looked for, as far as can be told: if it is not
// found the error says so of each.
func find(p *hostpolicy.CNIPolicy, name string) (*network, error) {
	dir, err := trustedfile.Open(p.ConfigDir)
	if err != nil {
		return nil, operation.Precondition(fmt.Errorf("look for networks of CNI: %w", err))
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxFiles)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("list %s: %w", p.ConfigDir, err)
	}
	slices.Sort(names)
	var had, unusable []string
	for _, file := range names {
		if ext := filepath.Ext(file); ext != ".conflist" && ext != ".conf" && ext != ".json" {
			continue
		}
		n, err := read(filepath.Join(p.ConfigDir, file))
		switch {
		case err != nil:
			unusable = append(unusable, err.Error())
		case n.Name == name:
			return n, nil
		default:
			had = append(had, n.Name)
		}
	}
	text := fmt.Sprintf("no file of %s configures the network %q of CNI; there are: %s", p.ConfigDir, name, listed(slices.Compact(had)))
	if len(unusable) > 0 {
		text += "; not used: " + strings.Join(unusable, "; ")
	}
	return nil, operation.Precondition(errors.New(text))
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// read reads one file, if nobody but root could have written it.
func read(path string) (*network, error) {
	f, err := trustedfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("look at %s: %w", path, err)
	}
	b, err := trustedfile.Read(f, &st, 0, maxConfig)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", path, err)
	case len(b) > maxConfig:
		return nil, fmt.Errorf("%s: expected at most %d bytes", path, maxConfig)
	}
	if filepath.Ext(path) != ".conflist" {
		if b, err = single(b); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	list, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &network{list, path}, nil
}

// single makes a list of the configuration of one plugin, as the files *.conf and *.json are.
func single(b []byte) ([]byte, error) {
	var one struct {
		Name       string `json:"name"`
		CNIVersion string `json:"cniVersion,omitempty"`
	}
	if err := json.Unmarshal(b, &one); err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"name": one.Name, "cniVersion": one.CNIVersion, "plugins": []json.RawMessage{b}})
}

// parse reads the configuration of a network and checks what is asked of plugins by it.
func parse(b []byte) (*libcni.NetworkConfigList, error) {
	list, err := libcni.ConfListFromBytes(b)
	if err != nil {
		return nil, err
	}
	if err := utils.ValidateNetworkName(list.Name); err != nil {
		return nil, err
	}
	if len(list.Plugins) == 0 || len(list.Plugins) > maxPlugins {
		return nil, fmt.Errorf("expected 1 to %d plugins in its list, got %d", maxPlugins, len(list.Plugins))
	}
	for _, p := range list.Plugins {
		for _, t := range needs(p) {
			if t != filepath.Base(t) || strings.HasPrefix(t, ".") || !yamldoc.Printable(t, "") {
				return nil, fmt.Errorf("expected the name of a plugin as its type, got %q", yamldoc.Clip(t))
			}
		}
	}
	return list, nil
}

// needs are the programs that a plugin needs: itself, and the one that it has manage
// addresses.
func needs(p *libcni.PluginConfig) []string {
	out := []string{p.Network.Type}
	if p.Network.IPAM.Type != "" {
		out = append(out, p.Network.IPAM.Type)
	}
	return out
}

// can says whether a plugin of the network takes the arguments of a capability.
func (n *network) can(capability string) bool {
	return slices.ContainsFunc(n.Plugins, func(p *libcni.PluginConfig) bool { return p.Network.Capabilities[capability] })
}

// programs are the plugins of this host.
type programs struct {
	dirs []string
	// untrusted says which directories are not used, and why.
	untrusted []string
}

// programsIn are those in the directories of a policy that nobody but root can change.
func programsIn(p *hostpolicy.CNIPolicy) *programs {
	out := &programs{}
	for _, dir := range p.PluginDirs {
		switch err := judge(dir); {
		case err == nil:
			out.dirs = append(out.dirs, dir)
		case !errors.Is(err, fs.ErrNotExist):
			out.untrusted = append(out.untrusted, err.Error())
		}
	}
	return out
}

// judge says why nothing of a directory is run. Plugins start others that they find there, and
// which ones is not known here: so all that is in it counts.
func judge(dir string) error {
	d, err := trustedfile.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(maxFiles + 1)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("list %s: %w", dir, err)
	case len(names) > maxFiles:
		return fmt.Errorf("%s has more than %d files", dir, maxFiles)
	}
	for _, name := range names {
		f, err := trustedfile.Open(filepath.Join(dir, name))
		if untrusted, ok := errors.AsType[*trustedfile.UntrustedError](err); ok {
			return untrusted
		}
		if err == nil {
			f.Close()
		}
	}
	return nil
}

// find returns the path of a plugin. Nobody but root can put another program there between
// this look and its start.
func (p *programs) find(name string) (string, error) {
	for _, dir := range p.dirs {
		path := filepath.Join(dir, name)
		f, err := trustedfile.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", operation.Precondition(fmt.Errorf("plugin %s of CNI: %w", name, err))
		}
		st, err := f.Stat()
		f.Close()
		if err == nil && (!st.Mode().IsRegular() || st.Mode()&0o111 == 0) {
			err = fmt.Errorf("%s: expected an executable file", path)
		}
		if err != nil {
			return "", operation.Precondition(fmt.Errorf("plugin %s of CNI: %w", name, err))
		}
		return path, nil
	}
	text := fmt.Sprintf("plugin %s of CNI is not there; looked for in: %s", name, listed(p.dirs))
	if len(p.untrusted) > 0 {
		text += "; not used: " + strings.Join(p.untrusted, "; ")
	}
	return "", operation.Precondition(errors.New(text))
}

// all finds every program that a network needs.
func (p *programs) all(list *libcni.NetworkConfigList) error {
	var errs []error
	for _, c := range list.Plugins {
		for _, t := range needs(c) {
			_, err := p.find(t)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// path is CNI_PATH.
func (p *programs) path() string { return strings.Join(p.dirs, string(os.PathListSeparator)) }

// Look says what is wrong with a network as it is configured now, nil if sandboxes can be
// started on it.
func Look(p *hostpolicy.CNIPolicy, name string) error {
	n, err := find(p, name)
	if err != nil {
		return err
	}
	return programsIn(p).all(n.NetworkConfigList)
}
