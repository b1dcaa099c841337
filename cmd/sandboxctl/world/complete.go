// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
)

// CompleteNames completes the names of sandboxes on record.
func (h *Host) CompleteNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return h.Complete(args, recorded)
}

func recorded(l *actual.Listing) (names []string) {
	for _, r := range l.Records {
		names = append(names, r.Name)
	}
	return names
}

// Complete completes one name among those picked of the state directory.
func (h *Host) Complete(args []string, pick func(*actual.Listing) []string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	store, err := actual.OpenStoreReadOnly(h.State)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer store.Close()
	list, err := store.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := pick(list)
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}

// CompleteMore completes every name of a verb that takes several, but for those
// that are there.
func (h *Host) CompleteMore(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	names, directive := h.Complete(nil, recorded)
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(args, n) }), directive
}

// CompleteAll is CompleteMore for a verb that is for documents too: config/NAME, network/NAME.
func (h *Host) CompleteAll(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	names, directive := h.CompleteMore(cmd, args, typed)
	if typed != "" && strings.ContainsAny(typed[:1], "csvn") {
		names = append(names, h.Documents(cmd.Context(), "", args)...)
	}
	return names, directive
}

// Documents are the full names of documents with a beginning, without it, but for those
// that are there.
func (h *Host) Documents(ctx context.Context, beginning string, args []string) (names []string) {
	w, err := h.OnceUnjudged(ctx)
	if err != nil {
		return nil
	}
	for i := range w.In.Desired.Objects {
		if name, ok := strings.CutPrefix(w.In.Desired.Objects[i].Name(), beginning); ok && !slices.Contains(args, name) {
			names = append(names, name)
		}
	}
	return names
}

// CompleteSelectors completes -l of all verbs with the labels that manifests have.
func (h *Host) CompleteSelectors(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		if cmd.Flags().Lookup("selector") == nil {
			continue
		}
		_ = cmd.RegisterFlagCompletionFunc("selector", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			w, err := h.Once(cmd.Context())
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var labels []string
			for i := range w.In.Desired.Entries {
				for k, v := range w.In.Desired.Entries[i].Sandbox.Metadata.Labels {
					labels = append(labels, k+"="+v)
				}
			}
			slices.Sort(labels)
			return slices.Compact(labels), cobra.ShellCompDirectiveNoFileComp
		})
	}
}
