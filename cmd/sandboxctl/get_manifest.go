// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/cmd/sandboxctl/manifests"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/ownnotes"
	"sandboxctl.dev/reconcile"
)

// printManifests prints manifests that `apply -f` takes, one document for each
// sandbox, with defaults filled in. It prints what the manifests directory says
// or, if that is missing or broken, the last valid manifest on record.
func (a *app) printManifests(w *world.World, statuses []reconcile.Status) error {
	printed := 0
	for i := range statuses {
		name := statuses[i].Name
		e := w.Entry(name)
		if e == nil {
			err := fmt.Errorf("%s has no valid manifest; see `sandboxctl describe %s`", name, name)
			if len(statuses) == 1 {
				return err
			}
			fmt.Fprintf(a.Stderr, "warning: %s\n", show.Clean(err.Error()))
			continue
		}
		if err := printManifest(a.Stdout, document(e), printed > 0); err != nil {
			return err
		}
		printed++
	}
	return nil
}

// document is what a manifest says that `apply` takes: what sandboxctl notes of the sandbox of a
// claim is no part of it.
func document(e *desired.Entry) any {
	if e.Claim != nil {
		return manifests.ClaimDocument(e)
	}
	sb := *e.Sandbox
	sb.Metadata.Annotations = ownnotes.Without(sb.Metadata.Annotations)
	return &sb
}

// printManifest prints one manifest. It uses the encoder of the library that
// manifests are read with: another one leaves words unquoted that this reader
// refuses, such as <<.
func printManifest(out io.Writer, manifest any, separate bool) error {
	b, err := json.Marshal(manifest)
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(show.Escaped(b), &doc); err != nil { // JSON is YAML, but for control characters
		return fmt.Errorf("encode manifest: %w", err)
	}
	if err := restyle(&doc); err != nil {
		return err
	}
	var text bytes.Buffer
	if separate {
		text.WriteString("---\n")
	}
	enc := yaml.NewEncoder(&text)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&doc), enc.Close()); err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	if _, err := out.Write(show.Escaped(text.Bytes())); err != nil {
		return fmt.Errorf("print manifest: %w", err)
	}
	return nil
}

// restyle turns the style of JSON into that of YAML. Quotes stay around a string
// that some version of YAML reads as something else, and around one that a
// manifest may hold only with an escape in it.
func restyle(n *yaml.Node) error {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		alone, err := yaml.Marshal(n.Value)
		if err != nil {
			return fmt.Errorf("encode manifest: %w", err)
		}
		if bytes.ContainsAny(alone[:1], `"'`) || strings.ContainsFunc(n.Value, func(r rune) bool { return untrusted.Obeyed(r) && r != '\n' }) {
			n.Style = yaml.DoubleQuotedStyle
		}
	}
	for _, c := range n.Content {
		if err := restyle(c); err != nil {
			return err
		}
	}
	return nil
}
