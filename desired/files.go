// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/yamldoc"
	"sandboxctl.dev/desired/zone"
)

// FileRef is a file of the host, or a document or one of its values, that a manifest
// refers to and that is read at a start.
type FileRef struct {
	// Field is where it is named, as in spec.envFrom[0].file.
	Field string
	// Path is that of a file, which is absolute, or one that RefPath made.
	Path string
	// What the manifest says of it.
	Optional bool
	OnChange string
	// Volume is the name of the volume that shows it, "" if a variable has it.
	Volume string
}

// FileRefs are the files that are read at a start, in the order of the manifest.
func (s *Spec) FileRefs() (refs []FileRef) {
	for i := range filesOf(s.Env) {
		refs = append(refs, s.Env[i].ValueFrom.ref(fmt.Sprintf("spec.env[%d].valueFrom", i)))
	}
	for i := range s.EnvFrom {
		refs = append(refs, s.EnvFrom[i].ref(fmt.Sprintf("spec.envFrom[%d]", i)))
	}
	if s.Timezone == zone.Host {
		refs = append(refs, FileRef{Field: "spec.timezone", Path: HostZoneRef, Optional: true, OnChange: OnChangeRestart})
	}
	for i := range s.Volumes {
		if v := &s.Volumes[i]; v.InMemory() != nil {
			refs = append(refs, v.refs(fmt.Sprintf("spec.volumes[%d]", i))...)
		}
	}
	return refs
}

func (s *EnvSource) ref(at string) FileRef {
	switch {
	case s.Config != nil:
		return FileRef{Field: at + ".config", Path: objects.RefPath(objects.Config, s.Config.Name, s.Config.Key), Optional: s.Config.Optional, OnChange: s.OnChange}
	case s.Secret != nil:
		return FileRef{Field: at + ".secret", Path: objects.RefPath(objects.Secret, s.Secret.Name, s.Secret.Key), Optional: s.Secret.Optional, OnChange: s.OnChange}
	}
	return FileRef{Field: at + ".file", Path: s.File, Optional: s.Optional, OnChange: s.OnChange}
}

func (f *EnvFrom) ref(at string) FileRef {
	r := FileRef{Field: at + ".file", Path: f.File, Optional: f.Optional, OnChange: f.OnChange}
	switch {
	case f.Config != nil:
		r.Field, r.Path = at+".config", objects.RefPath(objects.Config, f.Config.Name, "")
	case f.Secret != nil:
		r.Field, r.Path = at+".secret", objects.RefPath(objects.Secret, f.Secret.Name, "")
	}
	return r
}

// refs are the files and values that a volume in memory shows, and no others: a change of
// one that is not seen in the sandbox is no change for it.
func (v *Volume) refs(at string) (refs []FileRef) {
	set, kind := v.InMemory(), v.Kind()
	of := at + "." + strings.ToLower(kind)
	ref := func(field, path string) {
		refs = append(refs, FileRef{Field: field, Path: path, Optional: set.Optional, OnChange: set.OnChange, Volume: v.Name})
	}
	switch {
	case set.Name != "" && len(set.Items) == 0 && v.SubPath != "":
		ref(at+".subPath", objects.RefPath(kind, set.Name, v.SubPath))
	case set.Name != "" && len(set.Items) == 0:
		ref(of+".name", objects.RefPath(kind, set.Name, ""))
	}
	for i, item := range set.Items {
		if v.Shows(item.Path) {
			ref(fmt.Sprintf("%s.items[%d].key", of, i), objects.RefPath(kind, set.Name, item.Key))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(set.Files)) {
		if v.Shows(name) {
			ref(yamldoc.Join(of+".files", name), set.Files[name])
		}
	}
	return refs
}

// Kind is that of the documents that a volume in memory may have values of.
func (v *Volume) Kind() string {
	if v.Secret != nil {
		return objects.Secret
	}
	return objects.Config
}

// Shows says whether a file of a volume is in what of it is mounted.
func (v *Volume) Shows(name string) bool {
	return v.SubPath == "" || name == v.SubPath || strings.HasPrefix(name, v.SubPath+"/")
}

// shown checks that there is something where subPath leads. The keys of a whole document
// are known at a start.
func (v *Validator) shown(at string, vol *Volume) {
	set := vol.InMemory()
	if vol.SubPath == "" || set == nil {
		return
	}
	if set.Optional && set.OnChange == OnChangeSignal {
		v.Add(at, "with optional and onChange: signal expected a whole volume: what comes later can't be mounted in a sandbox that runs; use onChange: restart")
	}
	if set.Name != "" && len(set.Items) == 0 {
		v.objectKey(at, vol.SubPath)
		return
	}
	names := set.names()
	if slices.ContainsFunc(names, vol.Shows) || v.Full() {
		return
	}
	msg := fmt.Sprintf("the volume has no file or directory %q", yamldoc.Clip(vol.SubPath))
	if n := yamldoc.Nearest(vol.SubPath, names); n != "" {
		msg += fmt.Sprintf("; did you mean %q?", n)
	}
	v.Add(at, "%s", msg)
}

// names are those of all files of a volume that is no whole document.
func (set *FileSet) names() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(set.Data)), maps.Keys(set.Files))
	for i := range set.Items {
		names = append(names, set.Items[i].Path)
	}
	slices.Sort(names)
	return names
}

// InMemory are the files of a volume that is in memory, nil if it is not.
func (v *Volume) InMemory() *FileSet {
	if v.Config != nil {
		return v.Config
	}
	return v.Secret
}

// Limits of a volume in memory.
const (
	MaxFileSet  = 500
	MaxFileSize = 1 << 20
	// MaxFileSets bounds all of a sandbox: its gofer is started with them.
	MaxFileSets = 8 << 20
)

// DefaultFileMode lets every user of the sandbox read.
const DefaultFileMode = 0o444

// Bits is the mode as a number, of one that is valid.
func (m FileMode) Bits() uint32 {
	n, err := strconv.ParseUint(string(m), 8, 32)
	if m == "" || err != nil {
		return DefaultFileMode
	}
	return uint32(n)
}

func (v *Validator) fileSet(at string, set *FileSet, secret bool) {
	v.fileMode(at+".mode", set.Mode)
	v.OneOf(at+".onChange", set.OnChange, OnChangeRestart, OnChangeSignal, OnChangeIgnore)
	switch {
	case set.OnChange != OnChangeSignal && set.Signal != "":
		v.Add(at+".signal", "is for onChange: signal")
	case set.Signal == "SIGKILL" || set.Signal == "SIGSTOP":
		v.Add(at+".signal", "%s can't be handled by an application; use onChange: restart", set.Signal)
	case set.OnChange == OnChangeSignal && set.Name == "" && len(set.Files) == 0:
		v.Add(at+".onChange", "signal is for files and documents: a change of data is one of the manifest, and restarts the sandbox")
	}
	switch {
	case set.Name != "":
		v.named(at, set)
		return
	case len(set.Items) > 0:
		v.Missing(at+".name", "the name of a document with these keys")
		return
	case secret && len(set.Data) > 0:
		v.Add(at+".data", "what is in a manifest is shown by every verb and is no secret; use files, or config for what is none")
	case len(set.Data)+len(set.Files) == 0:
		v.Add(at, "expected at least one file; for example files: {token: /srv/sandboxctl/token}")
	case len(set.Data)+len(set.Files) > MaxFileSet:
		v.Add(at, "expected at most %d files, got %d", MaxFileSet, len(set.Data)+len(set.Files))
		return
	}
	names := map[string]string{} // to where they are given
	for field, keys := range map[string][]string{".data": slices.Sorted(maps.Keys(set.Data)), ".files": slices.Sorted(maps.Keys(set.Files))} {
		for _, name := range keys {
			in := yamldoc.Join(at+field, name)
			v.fileName(in, name)
			if names[name] != "" {
				v.Add(in, "%s is given twice; remove one of them", yamldoc.Clip(name))
			}
			names[name] = in
		}
	}
	v.noFileIsDirectory(names)
	for _, name := range slices.Sorted(maps.Keys(set.Files)) {
		v.HostPath(yamldoc.Join(at+".files", name), set.Files[name])
	}
}

// noFileIsDirectory checks paths of files, each with the field that it is in.
func (v *Validator) noFileIsDirectory(names map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
			if names[dir] != "" {
				v.Add(names[name], "%s is a file of this volume, and can't be a directory too; rename one of them", yamldoc.Clip(dir))
			}
		}
	}
}

func (v *Validator) fileMode(at string, mode FileMode) {
	if n, err := strconv.ParseUint(string(mode), 8, 32); mode != "" && (err != nil || n > 0o777 || len(mode) > 4) {
		v.Add(at, "expected permissions such as \"0444\" or \"0400\", got %q", yamldoc.Clip(string(mode)))
	}
}

// fileName checks the path of a file in a volume.
func (v *Validator) fileName(field, name string) {
	if !filepath.IsLocal(name) || path.Clean(name) != name || name == "." {
		v.Add(field, "expected the name of a file in the volume, such as app.conf or conf.d/app.conf, got %q", yamldoc.Clip(name))
		return
	}
	if len(strings.Split(name, "/")) > 8 {
		v.Add(field, "expected at most 8 directories, got %q", yamldoc.Clip(name))
	}
	if len(name) >= unix.NAME_MAX {
		v.Add(field, "the name has %d bytes, at most %d are possible", len(name), unix.NAME_MAX-1)
	}
	if !yamldoc.Printable(name, "") {
		v.Add(field, "expected a name without control characters, got %q", yamldoc.Clip(name))
	}
}
