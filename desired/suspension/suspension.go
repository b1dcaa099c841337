// SPDX-License-Identifier: Apache-2.0

// Package suspension changes spec.suspend of a sandbox in the text of its manifest.
package suspension

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/yamldoc"
)

// Set returns a manifest file in which spec.suspend of one sandbox is as
// given. Every other byte stays. It returns data itself if nothing is to change.
func Set(file string, data []byte, name string, suspend bool) ([]byte, error) {
	if len(data) > yamldoc.MaxFileBytes {
		return nil, fmt.Errorf("%s has more than %d bytes", file, yamldoc.MaxFileBytes)
	}
	at := 0
	for _, c := range yamldoc.Split(data, len(data)+1) {
		at += bytes.Index(data[at:], c.Text)
		doc := decode(file, c.Text)
		if doc.Name != name {
			at += len(c.Text)
			continue
		}
		if doc.Sandbox == nil {
			return nil, fmt.Errorf("the manifest of %s in %s is not valid; see `sandboxctl validate`", name, file)
		}
		if doc.Sandbox.Spec.Suspend == suspend {
			return data, nil
		}
		text, err := setSuspend(c.Text, suspend)
		if err != nil {
			return nil, fmt.Errorf("%s: %w; edit it by hand", file, err)
		}
		// The text was changed without knowing all of YAML: what it says now must be
		// what it said, but for this.
		now := decode(file, text)
		doc.Sandbox.Spec.Suspend = suspend
		if now.Sandbox == nil || !reflect.DeepEqual(now.Sandbox, doc.Sandbox) {
			return nil, fmt.Errorf("%s: spec.suspend can't be changed in its form; edit it by hand", file)
		}
		return bytes.Join([][]byte{data[:at], text, data[at+len(c.Text):]}, nil), nil
	}
	return nil, fmt.Errorf("%s does not define sandbox %q", file, name)
}

// decode reads the text of one document.
func decode(file string, text []byte) (doc desired.Document) {
	if docs, _ := desired.Decode(file, text); len(docs) == 1 {
		doc = docs[0]
	}
	return doc
}

func setSuspend(text []byte, suspend bool) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 {
		return nil, errors.New("no mapping")
	}
	spec := yamldoc.Field(doc.Content[0], "spec")
	if spec == nil || len(spec.Content) == 0 {
		return nil, errors.New("spec is empty")
	}
	word := strconv.FormatBool(suspend)
	if old := yamldoc.Field(spec, "suspend"); old != nil {
		i, err := offset(text, old)
		if err != nil || !bytes.HasPrefix(text[i:], []byte(old.Value)) {
			return nil, errors.New("spec.suspend is not a plain word")
		}
		return splice(text, i, len(old.Value), word), nil
	}
	if spec.Style&yaml.FlowStyle != 0 {
		i, err := offset(text, spec)
		if err != nil || text[i] != '{' {
			return nil, errors.New("spec does not begin with {")
		}
		return splice(text, i+1, 0, `"suspend": `+word+", "), nil
	}
	first := spec.Content[0]
	i, err := offset(text, first)
	if err != nil {
		return nil, err
	}
	return splice(text, i, 0, "suspend: "+word+"\n"+strings.Repeat(" ", first.Column-1)), nil
}

// offset is where a node begins.
func offset(text []byte, n *yaml.Node) (int, error) {
	i := 0
	for line := 1; line < n.Line; line++ {
		end := bytes.IndexByte(text[i:], '\n')
		if end < 0 {
			return 0, errors.New("no such line")
		}
		i += end + 1
	}
	if i += n.Column - 1; i >= len(text) {
		return 0, errors.New("no such column")
	}
	return i, nil
}

func splice(text []byte, at, length int, by string) []byte {
	return bytes.Join([][]byte{text[:at], []byte(by), text[at+length:]}, nil)
}
