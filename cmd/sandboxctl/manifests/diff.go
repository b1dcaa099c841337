// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"bytes"
	"context"
	"fmt"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
)

// Exit codes of diff, as kubectl's.
const (
	exitDiffers   = 1
	exitDiffError = 2
)

func (v verbs) diffCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "diff -f FILE|DIR|-",
		Short: "Show what apply would change",
		Long: `Show how manifests differ from those in the manifests directory, with defaults
filled in on both sides. A warning tells of single files that are volumes and
were replaced on the host since the sandbox was started. Exit code 0: no difference, 1: differences, 2: error.`,
		Example: `  sandboxctl diff -f web.yaml`,
		Args:    onlyFiles,
		RunE: func(cmd *cobra.Command, _ []string) error {
			differs, err := v.diff(cmd.Context(), files)
			if err != nil {
				return &exit.Error{Code: exitDiffError, Err: err}
			}
			if differs {
				return &exit.Error{Code: exitDiffers}
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file, directory or - for standard input (repeatable)")
	return cmd
}

func (v verbs) diff(ctx context.Context, files []string) (differs bool, err error) {
	policy, err := v.HostPolicy()
	if err != nil {
		return false, err
	}
	ms, err := v.readManifests(ctx, files, policy)
	if err != nil {
		return false, err
	}
	w, err := v.Once(ctx)
	if err != nil {
		return false, err
	}
	for i := range ms {
		name := ms[i].name()
		var old []byte
		from := "(none)"
		if ms[i].Object != nil {
			d, err := v.diffObject(w.In.Desired, &ms[i])
			if differs = differs || d; err != nil {
				return differs, err
			}
			continue
		}
		if e := w.In.Desired.Lookup(name); e != nil {
			from = e.Source.File
			if old, err = entryYAML(e); err != nil {
				return false, err
			}
		}
		for _, f := range w.ReplacedFiles(name) {
			fmt.Fprintf(v.Stderr, "warning: %s: %s\n", show.Clean(name), show.Clean(f))
		}
		e := ms[i].Entry()
		now, err := entryYAML(&e)
		if err != nil {
			return false, err
		}
		if d := diff.Diff(name+" in "+show.Clean(from), old, name+" in "+show.Clean(ms[i].Position.File), now); len(d) > 0 {
			differs = true
			if _, err := v.Stdout.Write(d); err != nil {
				return differs, err
			}
		}
	}
	return differs, nil
}

// diffObject shows how a document that is no sandbox differs; of a Secret, only in which keys.
func (v verbs) diffObject(snap *desired.Snapshot, m *manifest) (differs bool, err error) {
	name := m.name()
	kind, _, _ := objects.Split(name)
	from, was := "(none)", (*objects.Object)(nil)
	if o := snap.Objects.Lookup(name); o != nil {
		from, was = o.Source.File, o.Object
	}
	text := func(o, other *objects.Object) (out []byte) {
		for _, k := range o.Keys() {
			value := fmt.Sprintf("%q", o.Value(k))
			if p := o.File(k); p != "" {
				value = "file " + p
			} else if kind == objects.Secret && other != nil && bytes.Equal(o.Value(k), other.Value(k)) {
				value = "(secret)"
			} else if kind == objects.Secret {
				value = "(secret, another one)"
			}
			out = fmt.Appendf(out, "%s: %s\n", k, show.Clean(value))
		}
		return out
	}
	var old []byte
	if was != nil {
		if old = text(was, was); len(old) == 0 {
			old = []byte("{}\n")
		}
	}
	now := text(m.Object, was)
	if len(now) == 0 {
		now = []byte("{}\n")
	}
	d := diff.Diff(name+" in "+show.Clean(from), old, name+" in "+show.Clean(m.Position.File), now)
	_, err = v.Stdout.Write(d)
	return len(d) > 0, err
}

func canonicalYAML(sb *desired.Sandbox) ([]byte, error) {
	b, err := desired.Canonical(sb)
	if err != nil {
		return nil, err
	}
	y, err := yaml.JSONToYAML(b)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return y, nil
}
