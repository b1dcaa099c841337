// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/launcher/sentry"
)

// selection says which sandboxes a verb is for: those that are named, or those
// with labels.
type selection struct{ labels string }

func (s *selection) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&s.labels, "selector", "l", "", "sandboxes with these labels instead of NAMEs: a=b,c!=d,e,!f")
}

// names returns the sandboxes that are named or selected, each once and in order.
// Without either it returns nil if that means all, else it is wrong usage.
func (s *selection) names(w *world, args []string, all bool) ([]string, error) {
	if s.labels == "" {
		if len(args) == 0 && !all {
			return nil, exit.Usagef("expected a NAME, or -l LABEL=VALUE")
		}
		var names []string
		for _, n := range args {
			if w.status(n) == nil {
				return nil, w.noSuch(n)
			}
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
		return names, nil
	}
	if len(args) > 0 {
		return nil, exit.Usagef("expected NAMEs or -l, not both")
	}
	match, err := parseSelector(s.labels)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for i := range w.statuses {
		n := w.statuses[i].Name
		if e := w.entry(n); e != nil && match(e.Sandbox.Metadata.Labels) {
			names = append(names, n)
		}
	}
	if len(names) == 0 && !all {
		return nil, &exit.Error{Code: exit.Failure, Err: noneSelected(s.labels)}
	}
	return names, nil
}

type noneSelected string

func (n noneSelected) Error() string { return "no sandbox has the labels " + string(n) }

// parseSelector reads requirements as kubectl writes them: a=b or a==b, a!=b, a
// (has the label), !a (has it not).
func parseSelector(s string) (func(labels map[string]string) bool, error) {
	var all []func(map[string]string) bool
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		key, value, equal := strings.Cut(part, "=")
		differs := equal && strings.HasSuffix(key, "!")
		absent := !equal && strings.HasPrefix(part, "!")
		key = strings.TrimSpace(strings.Trim(key, "!"))
		value = strings.TrimSpace(strings.TrimPrefix(value, "="))
		if key == "" || strings.ContainsAny(key+value, "=!() ") {
			return nil, exit.Usagef("-l: expected LABEL=VALUE, LABEL!=VALUE, LABEL or !LABEL, got %q", part)
		}
		all = append(all, func(labels map[string]string) bool {
			got, has := labels[key]
			switch {
			case differs:
				return got != value || !has
			case equal:
				return has && got == value
			}
			return has != absent
		})
	}
	return func(labels map[string]string) bool {
		return !slices.ContainsFunc(all, func(f func(map[string]string) bool) bool { return !f(labels) })
	}, nil
}

// completeMore completes every name of a verb that takes several, but for those
// that are there.
func (a *app) completeMore(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	names, directive := a.complete(nil, func(l *actual.Listing) []string {
		var names []string
		for _, r := range l.Records {
			names = append(names, r.Name)
		}
		return names
	})
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(args, n) }), directive
}

// completeOutputs completes -o of all verbs with the formats that its usage names.
func completeOutputs(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		if f := cmd.Flags().Lookup("output"); f != nil {
			list, _, _ := strings.Cut(f.Usage, ":")
			formats := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
			completeValues(cmd, "output", slices.DeleteFunc(formats, func(s string) bool { return s == "or" })...)
		}
	}
}

// completeSelectors completes -l of all verbs with the labels that manifests have.
func (a *app) completeSelectors(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		if cmd.Flags().Lookup("selector") == nil {
			continue
		}
		_ = cmd.RegisterFlagCompletionFunc("selector", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			w, err := a.once(cmd.Context())
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var labels []string
			for i := range w.in.Desired.Entries {
				for k, v := range w.in.Desired.Entries[i].Sandbox.Metadata.Labels {
					labels = append(labels, k+"="+v)
				}
			}
			slices.Sort(labels)
			return slices.Compact(labels), cobra.ShellCompDirectiveNoFileComp
		})
	}
}

// completeValues completes a flag with one of a few values.
func completeValues(cmd *cobra.Command, flag string, values ...string) {
	// It fails only if there is no such flag, which TestCompleteOutputs would show.
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	})
}

// named is names for a verb that talks to the sandboxes themselves: whether there
// is one of a name is found out then.
func (a *app) named(ctx context.Context, s *selection, args []string, all bool) ([]string, error) {
	if s.labels == "" && len(args) > 0 {
		var names []string
		for _, n := range args {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
		return names, nil
	}
	if s.labels == "" && all {
		return nil, nil
	}
	w, err := a.once(ctx)
	if err != nil {
		return nil, err
	}
	return s.names(w, args, all)
}

// eachRunning calls f with a connection to each sandbox that is named or selected,
// also if it fails for one.
func (a *app) eachRunning(ctx context.Context, s *selection, args []string, f func(c *sentry.Control, name string) error) error {
	names, err := a.named(ctx, s, args, false)
	if err != nil {
		return err
	}
	store, err := a.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	var errs []error
	for _, n := range names {
		c, _, err := sentry.Connect(ctx, store, n)
		if err == nil {
			err = errors.Join(f(c, n), c.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
