// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/values"
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
	v.Name("metadata.name", m.Name)
	v.Words("metadata.labels", m.Labels, "")
	v.Words("metadata.annotations", m.Annotations, "\n\t")
}

// Object is a valid document of a snapshot that is no sandbox.
type Object struct {
	*objects.Object
	Declared
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
	r := newObjectReader(d, false)
	r.Text("data", c.Data)
	r.Base64("binaryData", c.BinaryData, "data")
	r.files(c.Files)
	doc.Object = r.object(objects.Config, &c.Metadata, c.Files, policy)
}

func readSecret(d *yamldoc.Doc, policy Policy, doc *Document) {
	var s Secret
	if !decodeObject(d, &s) {
		return
	}
	r := newObjectReader(d, true)
	r.Base64("data", s.Data, "stringData")
	r.Text("stringData", s.StringData)
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
	*values.Reader
	d      *yamldoc.Doc
	secret bool // no message may show what is in files
}

func newObjectReader(d *yamldoc.Doc, secret bool) *objectReader {
	r := &objectReader{d: d, secret: secret}
	r.Reader = values.NewReader(r.Validator.Add)
	return r
}

func (r *objectReader) files(files map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(files)) {
		at, ok := r.Key("files", k)
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
	if n := len(r.Values) + len(files); n > objects.MaxKeys {
		r.Add("", "expected at most %d keys, got %d; use several documents, or a hostPath", objects.MaxKeys, n)
	}
	report(r.d, r.Errors(), "")
	if policy != nil && len(r.Errors()) == 0 { // it shows paths
		report(r.d, policy.CheckFiles(fileRefs("files", files)), ReasonPolicyDenied)
	}
	return objects.New(kind, m.Name, r.Values, files)
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

func (v *Validator) keyRef(at string, k *KeyRef) {
	v.Name(at+".name", k.Name)
	v.objectKey(at+".key", k.Key)
}

func (v *Validator) objectKey(at, key string) {
	if !objects.ValidKey(key) {
		v.Add(at, "expected a key of %s, got %q", objects.KeyRule, yamldoc.Clip(key))
	}
}

// named checks a volume with the values of a document.
func (v *Validator) named(at string, set *FileSet) {
	v.Name(at+".name", set.Name)
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
