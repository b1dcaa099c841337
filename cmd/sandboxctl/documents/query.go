// SPDX-License-Identifier: Apache-2.0

// Package documents shows documents that are no sandboxes, and claims: which keys they have and which
// sandboxes use them. Of a Secret it shows no value, in no format.
package documents

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
)

// kindWords are what people type for a kind, here and with kubectl. Sandboxes have none.
var kindWords = map[string]string{
	"configs": objects.Config, "config": objects.Config, "configmaps": objects.Config, "configmap": objects.Config, "cm": objects.Config,
	"secrets": objects.Secret, "secret": objects.Secret,
	"volumes": objects.Volume, "volume": objects.Volume, "persistentvolumeclaims": objects.Volume, "pvc": objects.Volume,
	"networks": objects.Network, "network": objects.Network,
	"pools": objects.Pool, "pool": objects.Pool, "sandboxpools": objects.Pool, "sandboxpool": objects.Pool,
	"sandboxes": "", "sandbox": "",
}

// Query says which documents are asked for.
type Query struct {
	// kind is that of all that are asked for, if none is named.
	kind  string
	names []string // full ones
}

// Parse reads the arguments of get and describe: configs, secret NAME, config/NAME. If they
// are about sandboxes there is no query, and rest are the names of these.
func Parse(w *world.World, args []string) (q *Query, rest []string, err error) {
	if len(args) == 0 {
		return nil, nil, nil
	}
	if (args[0] == "claims" || args[0] == "claim" || args[0] == "sandboxclaims") && w.Status(args[0]) == nil {
		return &Query{kind: desired.ClaimKind, names: args[1:]}, nil, nil
	}
	// A sandbox may have the name of a kind.
	if kind, ok := kindWords[args[0]]; ok && w.Status(args[0]) == nil {
		if kind == "" {
			return nil, args[1:], nil
		}
		q = &Query{kind: kind}
		for _, n := range args[1:] {
			q.add(objects.Name(kind, strings.TrimPrefix(n, objects.Name(kind, ""))))
		}
		return q, nil, nil
	}
	q = &Query{}
	for _, a := range args {
		kind, name, slash := strings.Cut(a, "/")
		if kindWords[kind] == "" || !slash {
			rest = append(rest, a)
			continue
		}
		q.add(objects.Name(kindWords[kind], name))
	}
	switch {
	case len(q.names) == 0:
		return nil, args, nil
	case len(rest) > 0:
		return nil, nil, exit.Usagef("expected sandboxes or documents, got both: %s and %s", show.Clean(rest[0]), show.Clean(q.names[0]))
	}
	return q, nil, nil
}

func (q *Query) add(name string) {
	if !slices.Contains(q.names, name) {
		q.names = append(q.names, name)
	}
}

// find returns what is asked for. What is broken is told on standard error if all are asked
// for, and is an error if it is named.
func (q *Query) find(h *world.Host, w *world.World) ([]document, error) {
	if q.kind == desired.ClaimKind {
		return q.claims(w)
	}
	out, used := []document{}, usersOfAll(w)
	defer func() { fillReady(h, out) }()
	if q.names == nil {
		for i := range w.In.Desired.Objects {
			if o := &w.In.Desired.Objects[i]; is(o.Name(), q.kind) {
				out = append(out, describe(w, o, used[o.Name()]))
			}
		}
		for _, p := range w.In.Desired.Problems {
			if is(p.Name, q.kind) {
				fmt.Fprintln(h.Stderr, show.Clean(p.Error()))
			}
		}
		return out, nil
	}
	for _, n := range q.names {
		o := w.In.Desired.Objects.Lookup(n)
		if o == nil {
			return nil, missing(w, n, used[n])
		}
		out = append(out, describe(w, o, used[n]))
	}
	return out, nil
}

func is(name, kind string) bool {
	k, _, ok := objects.Split(name)
	return ok && k == kind
}

// missing says what is wrong with a document, or that there is none, and who waits for it.
func missing(w *world.World, name string, users []string) error {
	var errs []error
	for _, p := range w.In.Desired.Problems {
		if p.Name == name {
			errs = append(errs, errors.New(show.Clean(p.Error())))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, w.NoSuch(name))
	}
	if len(users) > 0 {
		errs = append(errs, fmt.Errorf("%s is used by %s", name, strings.Join(users, ", ")))
	}
	return errors.Join(errs...)
}

// Completer completes names of sandboxes and documents, and the words for kinds of these.
func Completer(h *world.Host) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && kindWords[args[0]] != "" {
			return h.Documents(cmd.Context(), objects.Name(kindWords[args[0]], ""), args), cobra.ShellCompDirectiveNoFileComp
		}
		names, directive := h.CompleteAll(cmd, args, typed)
		if len(args) == 0 {
			names = append(names, "configs", "secrets", "volumes", "networks", "pools", "claims")
		}
		return names, directive
	}
}
