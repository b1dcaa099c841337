// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/yamldoc"
)

// Config is a document with values that sandboxes refer to by its name.
type Config struct {
	// `sandboxctl.dev/v1alpha1`.
	APIVersion string `json:"apiVersion"`
	// `Config`.
	Kind     string   `json:"kind"`
	Metadata Metadata `json:"metadata"`
	// Values as text, by key. A key has letters, digits, `-`, `_` and `.`.
	Data map[string]string `json:"data,omitempty"`
	// Values in base64, which need not be text.
	BinaryData map[string]string `json:"binaryData,omitempty"`
	// Values that are files of the host: the absolute path of each. The host policy must
	// allow them as a `hostPath`. They are read when a sandbox starts.
	Files map[string]string `json:"files,omitempty"`
}

// Secret is the same with values that no verb shows.
type Secret struct {
	// `sandboxctl.dev/v1alpha1`.
	APIVersion string `json:"apiVersion"`
	// `Secret`.
	Kind     string   `json:"kind"`
	Metadata Metadata `json:"metadata"`
	// What it is for, as in Kubernetes; nothing follows from it.
	Type string `json:"type,omitempty"`
	// Values in base64, by key, as in Kubernetes.
	Data map[string]string `json:"data,omitempty"`
	// Values as text.
	StringData map[string]string `json:"stringData,omitempty"`
	// Values that are files of the host, as in a Config.
	Files map[string]string `json:"files,omitempty"`
}

var (
	configSchema = SchemaOf(func() yamldoc.Schema {
		return yamldoc.Schema{Type: reflect.TypeFor[Config](), Required: objectRequired[Config](objects.Config)}
	})
	secretSchema = SchemaOf(func() yamldoc.Schema {
		return yamldoc.Schema{Type: reflect.TypeFor[Secret](), Required: objectRequired[Secret](objects.Secret), ListExamples: map[string]string{"data": `{TOKEN: dGV4dA==}`}, Secret: true}
	})
)

func objectRequired[T any](kind string) map[reflect.Type]map[string]string {
	return map[reflect.Type]map[string]string{reflect.TypeFor[T](): {"apiVersion": APIVersion, "kind": kind, "metadata": "an object with a name"}}
}

func (v *Validator) metadata(m *Metadata) {
	v.name("metadata.name", m.Name)
	v.words("metadata.labels", m.Labels, "")
	v.words("metadata.annotations", m.Annotations, "\n\t")
}

// Object is a valid Config, Secret, Volume or Network of a snapshot.
type Object struct {
	*objects.Object
	// Volume is what a Volume declares, nil of other kinds, and Network what a Network does.
	Volume  *VolumeSpec
	Network *networks.Declared
	// Source is where the document begins.
	Source Position
}

// MarshalJSON writes no value.
func (o Object) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", o.Name()), nil }

func readConfig(d *yamldoc.Doc, policy Policy, doc *Document) {
	var c Config
	if !decodeObject(d, &c) {
		return
	}
	r := &objectReader{d: d, values: map[string][]byte{}, at: map[string]string{}}
	r.text("data", c.Data)
	r.base64("binaryData", c.BinaryData, "data")
	r.files(c.Files)
	doc.Object = r.object(objects.Config, &c.Metadata, c.Files, policy)
}

func readSecret(d *yamldoc.Doc, policy Policy, doc *Document) {
	var s Secret
	if !decodeObject(d, &s) {
		return
	}
	r := &objectReader{d: d, secret: true, values: map[string][]byte{}, at: map[string]string{}}
	r.base64("data", s.Data, "stringData")
	r.text("stringData", s.StringData)
	r.files(s.Files)
	if !yamldoc.Printable(s.Type, "") {
		r.Add("type", "expected text without control characters")
	}
	doc.Object = r.object(objects.Secret, &s.Metadata, s.Files, policy)
}

// decodeObject fills in a document, unless it has problems.
func decodeObject(d *yamldoc.Doc, to any) bool {
	if len(d.Problems()) > 0 {
		return false
	}
	if err := d.Decode(to); err != nil {
		d.Report("", "", "the document can't be decoded") // the error may have a value in it
		return false
	}
	return true
}

// report tells what is wrong with fields of a document.
func report(d *yamldoc.Doc, errs []FieldError, reason string) {
	for _, e := range errs {
		d.Report(e.Field, reason, e.Message)
	}
}

// objectReader takes in the values of a document. What it finds wrong tells no value.
type objectReader struct {
	Validator
	d      *yamldoc.Doc
	secret bool // no message may show what is in files
	values map[string][]byte
	at     map[string]string // where each key is
}

// key checks a key of a field, and notes where it is.
func (r *objectReader) key(field, key string) (at string, ok bool) {
	at = yamldoc.Join(field, key)
	switch first := r.at[key]; {
	case !objects.ValidKey(key):
		r.Add(at, "expected a key of %s", objects.KeyRule)
	case first != "":
		r.Add(at, "%s is given twice, also as %s; remove one of them", key, first)
	default:
		r.at[key] = at
		return at, true
	}
	return at, false
}

func (r *objectReader) text(field string, data map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(data)) {
		if _, ok := r.key(field, k); ok {
			r.values[k] = []byte(data[k])
		}
	}
}

// base64 takes in values that are encoded; plain is the field for those that are not.
func (r *objectReader) base64(field string, data map[string]string, plain string) {
	for _, k := range slices.Sorted(maps.Keys(data)) {
		at, ok := r.key(field, k)
		if !ok {
			continue
		}
		// As base64(1) wraps it.
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(data[k]), ""))
		if err != nil {
			r.Add(at, "expected base64; text that is not encoded belongs into %s", plain)
			continue
		}
		r.values[k] = b
	}
}

func (r *objectReader) files(files map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(files)) {
		at, ok := r.key("files", k)
		if v := new(Validator); ok && r.secret {
			if v.HostPath(at, files[k]); len(v.Errors()) > 0 {
				r.Add(at, "expected the absolute path of a file; a value itself belongs into stringData")
			}
		} else if ok {
			r.HostPath(at, files[k])
		}
	}
}

// object reports what is wrong, and returns what was read if nothing is.
func (r *objectReader) object(kind string, m *Metadata, files map[string]string, policy Policy) *objects.Object {
	r.metadata(m)
	if n := len(r.values) + len(files); n > objects.MaxKeys {
		r.Add("", "expected at most %d keys, got %d; use several documents, or a hostPath", objects.MaxKeys, n)
	}
	report(r.d, r.Errors(), "")
	if policy != nil && len(r.Errors()) == 0 { // it shows paths
		report(r.d, policy.CheckFiles(fileRefs("files", files)), ReasonPolicyDenied)
	}
	return objects.New(kind, m.Name, r.values, files)
}

func fileRefs(at string, files map[string]string) (refs []FileRef) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		refs = append(refs, FileRef{Field: yamldoc.Join(at, name), Path: files[name]})
	}
	return refs
}

// ObjectName names a document: as {name: web}, or shorter as web.
type ObjectName struct {
	// The name of the document.
	Name string `json:"name"`
}

// UnmarshalJSON reads both forms.
func (n *ObjectName) UnmarshalJSON(b []byte) error {
	if s, err := scalar.Text(b); err == nil {
		n.Name = s
		return nil
	}
	type plain ObjectName
	return json.Unmarshal(b, (*plain)(n))
}

// Shorthand says that a text may stand for the object.
func (*ObjectName) Shorthand() {}

// KeyRef names one value of a document.
type KeyRef struct {
	// The name of the document.
	Name string `json:"name"`
	// The key of the value.
	Key string `json:"key"`
	// The sandbox starts without the variable if there is no such document or key.
	// Otherwise it waits for it. Default: `false`.
	Optional bool `json:"optional,omitempty"`
}

// KeyItem is a value of a document as a file of a volume.
type KeyItem struct {
	// The key of the value.
	Key string `json:"key"`
	// The name of the file in the volume.
	Path string `json:"path"`
	// Its permissions. Default: those of the volume.
	Mode FileMode `json:"mode,omitempty"`
}

// RefPath is the path of a FileRef to a document, or to one of its values if key is
// not "". No path of a file looks like it.
func RefPath(kind, name, key string) string {
	p := objects.Name(kind, name)
	if key != "" {
		p += "/" + key
	}
	return p
}

// ObjectOf takes apart the path of a FileRef; ok is false for that of a file.
func ObjectOf(refPath string) (name, key string, ok bool) {
	kind, rest, ok := objects.Split(refPath)
	if !ok {
		return "", "", false
	}
	n, key, _ := strings.Cut(rest, "/")
	return objects.Name(kind, n), key, true
}

func (v *Validator) keyRef(at string, k *KeyRef) {
	v.name(at+".name", k.Name)
	v.objectKey(at+".key", k.Key)
}

func (v *Validator) objectKey(at, key string) {
	if !objects.ValidKey(key) {
		v.Add(at, "expected a key of %s, got %q", objects.KeyRule, yamldoc.Clip(key))
	}
}

// named checks a volume with the values of a document.
func (v *Validator) named(at string, set *FileSet) {
	v.name(at+".name", set.Name)
	if len(set.Data)+len(set.Files) > 0 {
		v.Add(at, "expected name, or data and files, got both; remove one of them")
	}
	if len(set.Items) > MaxFileSet {
		v.Add(at+".items", "expected at most %d files, got %d", MaxFileSet, len(set.Items))
		return
	}
	paths := map[string]string{}
	for i, item := range set.Items {
		in := fmt.Sprintf("%s.items[%d]", at, i)
		v.objectKey(in+".key", item.Key)
		v.fileName(in+".path", item.Path)
		v.fileMode(in+".mode", item.Mode)
		if paths[item.Path] != "" {
			v.Add(in+".path", "%s is given twice; rename one of them", yamldoc.Clip(item.Path))
		}
		paths[item.Path] = in + ".path"
	}
	v.noFileIsDirectory(paths)
}
