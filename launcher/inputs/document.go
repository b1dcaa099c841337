// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"errors"
	"fmt"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/envfile"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/launcher/setup"
)

// keyed is one value of a document.
type keyed struct {
	key  string
	data []byte
	file bool // it is in a file of the host
}

// document takes values of a document, and notes which they were. ref is the path of a
// reference. Nothing is returned of what may be missing and is. taken is how many bytes
// the variables or volumes have so far: after desired.MaxFileSets nothing more is read,
// and the caller refuses the start. A document can name large files hundreds of times.
func (r *reader) document(ref string, optional bool, limit int, taken *int) ([]keyed, error) {
	name, key, _ := objects.Referred(ref)
	o := r.docs.Objects.Lookup(name)
	var lacks string
	switch {
	case o == nil:
		lacks = desired.Described(name) + " does not exist"
	case key != "" && !o.Has(key):
		lacks = fmt.Sprintf("%s has no key %q", desired.Described(name), key)
	}
	if lacks != "" && optional {
		r.read.Inputs = append(r.read.Inputs, actual.Input{File: ref})
		return nil, nil
	}
	if lacks != "" {
		return nil, operation.Precondition(errors.New(lacks))
	}
	keys := []string{key}
	if key == "" {
		keys = o.Keys()
	}
	var out []keyed
	var errs []error
	ids := map[string]string{}
	for _, k := range keys {
		if *taken > desired.MaxFileSets {
			return nil, errors.Join(errs...)
		}
		v, id, missing, err := r.keyed(o, k, optional, limit)
		*taken += len(v.data)
		ids[o.File(k)] = id
		if err != nil {
			errs = append(errs, fmt.Errorf("%s (%s), %s: %w", desired.Described(name), o.Source, k, err))
		} else if !missing {
			out = append(out, v)
		}
	}
	r.read.Inputs = append(r.read.Inputs, actual.Input{File: ref, ID: o.ID(r.docs.HostKey, keys, func(p string) string { return ids[p] })})
	return out, errors.Join(errs...)
}

// keyed is one value of a document, from where it is.
func (r *reader) keyed(o *desired.Object, key string, optional bool, limit int) (v keyed, id string, missing bool, err error) {
	v = keyed{key: key, data: o.Value(key)}
	if p := o.File(key); p != "" {
		v.file = true
		v.data, id, missing, err = r.content(p, optional, int64(limit))
	} else if len(v.data) > limit {
		err = operation.Precondition(fmt.Errorf("it has more than %d bytes", limit))
	}
	return v, id, missing, err
}

// variable is the value as that of a variable. The error does not show it.
func (v *keyed) variable() (string, error) {
	if err := checkValue("key "+v.key, v.data); err != nil {
		return "", err
	}
	if v.file {
		return ofFile(v.data), nil
	}
	return string(v.data), nil
}

// keyValue is the value of a variable that is a value of a document.
func (r *reader) keyValue(from *desired.EnvSource) (field, value string, there bool, err error) {
	field, kind, key := "config", objects.Config, from.Config
	if from.Secret != nil {
		field, kind, key = "secret", objects.Secret, from.Secret
	}
	values, err := r.document(objects.RefPath(kind, key.Name, key.Key), key.Optional, envfile.MaxValue, &r.variables)
	if err != nil || len(values) == 0 {
		return field, "", false, err
	}
	value, err = values[0].variable()
	return field, value, err == nil, err
}

// fromDocument makes variables of all values of a document.
func (r *reader) fromDocument(from *desired.EnvFrom, at string) error {
	kind, of := objects.Config, from.Config
	if from.Secret != nil {
		kind, of = objects.Secret, from.Secret
		at += ".secret"
	} else {
		at += ".config"
	}
	values, err := r.document(objects.RefPath(kind, of.Name, ""), from.Optional, envfile.MaxValue, &r.variables)
	errs := []error{}
	if err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", at, err))
	}
	for i := range values {
		name := from.Prefix + values[i].key
		if !envfile.ValidName(name) {
			errs = append(errs, operation.Precondition(fmt.Errorf("%s: %q can't be the name of a variable (%s); use prefix, or env with valueFrom", at, name, envfile.NameRule)))
			continue
		}
		value, err := values[i].variable()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
			continue
		}
		r.set(envfile.Variable{Name: name, Value: value})
	}
	return errors.Join(errs...)
}

// namedVolume makes files of the values of a document: of those that items name, or of
// all. of is where the manifest names the document.
func (r *reader) namedVolume(vol *desired.Volume, at, of, kind string) (files []setup.MemoryFile, err error) {
	set := vol.InMemory()
	if len(set.Items) == 0 {
		field := of + ".name"
		if vol.SubPath != "" {
			field = at + ".subPath"
		}
		values, err := r.document(objects.RefPath(kind, set.Name, vol.SubPath), set.Optional, desired.MaxFileSize, &r.size)
		for _, v := range values {
			files = append(files, setup.MemoryFile{Name: v.key, Mode: set.Mode.Bits(), Data: v.data})
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		return files, nil
	}
	var errs []error
	for i, item := range set.Items {
		if r.size > desired.MaxFileSets {
			break
		}
		if !vol.Shows(item.Path) {
			continue
		}
		values, err := r.document(objects.RefPath(kind, set.Name, item.Key), set.Optional, desired.MaxFileSize, &r.size)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.items[%d].key: %w", of, i, err))
		}
		mode := set.Mode
		if item.Mode != "" {
			mode = item.Mode
		}
		for _, v := range values {
			files = append(files, setup.MemoryFile{Name: item.Path, Mode: mode.Bits(), Data: v.data})
		}
	}
	return files, errors.Join(errs...)
}
