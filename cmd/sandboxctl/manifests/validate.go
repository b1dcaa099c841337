// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/manifestdir"
	"sandboxctl.dev/desired/sizes"
)

func (v verbs) validateCommand() *cobra.Command {
	var (
		output string
		files  []string
	)
	cmd := &cobra.Command{
		Use:   "validate [FILE|DIR|-]...",
		Short: "Check manifests",
		Long: `Check manifests, by default those in the manifests directory, and print every
problem as file:line:column, also what the host policy does not allow. Nothing is
started. Exit code 1 if there is any.`,
		Example: `  sandboxctl validate web.yaml
  sandboxctl validate -o json manifests/`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exit.Format(output, "json"); err != nil {
				return err
			}
			found, err := v.validate(cmd.Context(), append(args, files...))
			if err != nil {
				return err
			}
			if output == "json" {
				if err := show.JSON(v.Stdout, found); err != nil {
					return err
				}
				if len(found.Problems) > 0 {
					return &exit.Error{Code: exit.Failure}
				}
				return nil
			}
			for _, w := range found.Warnings {
				fmt.Fprintf(v.Stderr, "warning: %s\n", show.Clean(w.Error()))
			}
			if len(found.Problems) > 0 {
				return problemsError(found.Problems)
			}
			are, others := "sandboxes are", ""
			if found.Sandboxes == 1 {
				are = "sandbox is"
			}
			if found.Documents > 0 {
				others = fmt.Sprintf(", besides %d other documents", found.Documents)
			}
			fmt.Fprintf(v.Stdout, "%d %s valid%s\n", found.Sandboxes, are, others)
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file, directory or - for standard input, as for apply (repeatable)")
	return cmd
}

// validation is what is said of manifests.
type validation struct {
	Sandboxes int               `json:"sandboxes"`
	Documents int               `json:"documents"` // of other kinds
	Problems  []desired.Problem `json:"problems"`
	Warnings  []desired.Warning `json:"warnings"`
}

// validate checks files, or without any the manifests directory.
func (v verbs) validate(ctx context.Context, args []string) (*validation, error) {
	policy, err := v.HostPolicy()
	if err != nil {
		return nil, err
	}
	found := &validation{Problems: []desired.Problem{}, Warnings: []desired.Warning{}}
	if len(args) == 0 {
		return found, v.validateDirectory(ctx, policy, found)
	}
	var given []sizes.Size
	var entries []desired.Entry
	var all []desired.Document
	texts := map[string][]byte{}
	for _, arg := range args {
		files, err := expand(arg)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			data, err := v.readInput(ctx, f)
			if err != nil {
				return nil, err
			}
			docs, problems := desired.Decoder{Policy: policy}.Decode(f.path, data)
			if w := desired.ForeignWarning(f.path, docs); w != nil {
				found.Warnings = append(found.Warnings, *w)
			}
			found.Problems = append(found.Problems, problems...)
			texts[f.path] = data
			all = append(all, docs...)
			for i := range docs {
				given = append(given, docs[i].Sizes...)
				switch {
				case docs[i].Object != nil:
					found.Documents++
				case docs[i].Foreign == "":
					found.Sandboxes++
					if docs[i].Sandbox != nil {
						entries = append(entries, docs[i].Entry())
					}
				}
			}
		}
	}
	for _, p := range sizes.Conflicts(given) {
		if !slices.ContainsFunc(found.Problems, func(q desired.Problem) bool { return q.Position == p.Position && q.Field == p.Field }) {
			found.Problems = append(found.Problems, p)
		}
	}
	textOf := func(file string) []byte { return texts[file] }
	// A pool may be in the manifests directory: that it is not given is no news.
	misfits, _ := judgeClaims(entries, withDocuments(&desired.Snapshot{Policy: policy}, all))
	found.Problems = append(found.Problems, misfits...)
	found.Problems = append(found.Problems, contended(entries, textOf)...)
	found.Warnings = append(found.Warnings, expired(entries, textOf, time.Now())...)
	return found, nil
}

func (v verbs) validateDirectory(ctx context.Context, policy desired.Policy, found *validation) (err error) {
	opts := manifestdir.Options{Path: v.Manifests, Once: true, Policy: func() (desired.Policy, error) { return policy, nil }}
	if opts.BootID, err = process.BootID(); err != nil {
		return err
	}
	daemon, _ := v.ReadDaemon()
	// With what the daemon remembers: a directory that is not mounted looks like any
	// empty one.
	opts.Memory = v.MemoryOf(daemon)
	snap, err := manifestdir.New(opts).Load(ctx)
	if err != nil {
		return err
	}
	if snap.Reason != "" && snap.Reason != desired.ReasonInvalidManifests {
		return fmt.Errorf("validate %s: %s", v.Manifests, snap.Message)
	}
	found.Sandboxes, found.Documents = len(snap.Entries), len(snap.Objects)
	found.Problems, found.Warnings = append(found.Problems, snap.Problems...), append(found.Warnings, snap.Warnings...)
	found.Problems = append(found.Problems, contended(snap.Entries, v.textOf)...)
	misfits, waiting := judgeClaims(snap.Entries, snap)
	found.Problems, found.Warnings = append(found.Problems, misfits...), append(found.Warnings, waiting...)
	found.Warnings = append(found.Warnings, unreachable(snap)...)
	found.Warnings = append(found.Warnings, expired(snap.Entries, v.textOf, time.Now())...)
	return nil
}
