// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/launcher/sentry"
)

// Selection says which sandboxes a verb is for: those that are named, or those
// with labels.
type Selection struct{ Labels string }

// Add adds the flag.
func (s *Selection) Add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&s.Labels, "selector", "l", "", "sandboxes with these labels instead of NAMEs: a=b,c!=d,e,!f")
}

// Names returns the sandboxes that are named or selected, each once and in order.
// Without either it returns nil if that means all, else it is wrong usage.
func (s *Selection) Names(w *World, args []string, all bool) ([]string, error) {
	if s.Labels == "" {
		if len(args) == 0 && !all {
			return nil, exit.Usagef("expected a NAME, or -l LABEL=VALUE")
		}
		var names []string
		for _, n := range args {
			if w.Status(n) == nil {
				return nil, w.NoSuch(n)
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
	match, err := parseSelector(s.Labels)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for i := range w.Statuses {
		n := w.Statuses[i].Name
		if e := w.Entry(n); e != nil && match(e.Sandbox.Metadata.Labels) {
			names = append(names, n)
		}
	}
	if len(names) == 0 && !all {
		return nil, &exit.Error{Code: exit.Failure, Err: noneSelected(s.Labels)}
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

// Named is names for a verb that talks to the sandboxes themselves: whether there
// is one of a name is found out then.
func (h *Host) Named(ctx context.Context, s *Selection, args []string, all bool) ([]string, error) {
	if s.Labels == "" && len(args) > 0 {
		var names []string
		for _, n := range args {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
		return names, nil
	}
	if s.Labels == "" && all {
		return nil, nil
	}
	w, err := h.Once(ctx)
	if err != nil {
		return nil, err
	}
	return s.Names(w, args, all)
}

// EachRunning calls f with a connection to each sandbox that is named or selected,
// also if it fails for one.
func (h *Host) EachRunning(ctx context.Context, s *Selection, args []string, f func(c *sentry.Control, name string) error) error {
	names, err := h.Named(ctx, s, args, false)
	if err != nil {
		return err
	}
	store, err := h.OpenStore()
	if err != nil {
		return err
	}
	defer store.Close()
	var errs []error
	for _, n := range names {
		c, _, err := h.Connect(ctx, store, n)
		if err == nil {
			err = errors.Join(f(c, n), c.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
