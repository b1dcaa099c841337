// SPDX-License-Identifier: Apache-2.0

// Package claims is the verb claim: a sandbox of a pool, with what it is to run. It writes the
// claim as a manifest, and says whether the sandbox got a place that was ready.
package claims

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/await"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/manifests"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/reconcile/expand"
	"sandboxctl.dev/reconcile/places"
)

// flags are those of the verb.
type flags struct {
	name    string
	env     []string
	volumes []string
	ttl     time.Duration
	wait    bool
	timeout time.Duration
	output  string
}

// Command is the verb.
func Command(h *world.Host) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:                   "claim POOL [--env NAME=VALUE] [--name NAME] [--ttl TIME] [--wait] [-- COMMAND [ARG]...]",
		DisableFlagsInUseLine: true,
		Short:                 "Take a sandbox of a pool",
		Long: `Take a sandbox of a pool: write a SandboxClaim into the manifests directory, as
NAME.yaml. The daemon makes the sandbox of the template of the pool with the command,
the environment and the volumes given here, in one of the places that the pool keeps
ready. The sandbox is used once: "delete NAME" removes it, and so does the end of --ttl
or of its command, but for the claim, its record and its logs.

The environment is in the manifest, which others of this host may read. If the pool
allows no more claims it is an error; with --wait, a place is waited for.`,
		Example: `  sandboxctl claim python --ttl 10m --wait -- python3 -m http.server
  name=$(sandboxctl claim python -o name --wait) && sandboxctl exec $name -- python3 -V`,
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); len(args) == 0 || n == 0 || n < 0 && len(args) > 1 || n > 1 {
				return exit.Usagef("expected POOL, and a command after --")
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return h.Documents(cmd.Context(), objects.Name(objects.Pool, ""), nil), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exit.Format(f.output, "name", "json"); err != nil {
				return err
			}
			return f.claim(cmd.Context(), h, args[0], args[1:])
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.name, "name", "", "the name of the sandbox (default: one that nobody has)")
	fl.StringArrayVarP(&f.env, "env", "e", nil, "NAME=VALUE to add to the environment of the template (repeatable)")
	fl.StringArrayVarP(&f.volumes, "volume", "v", nil, "SOURCE:PATH[:ro], with a path of the host or the name of a volume as SOURCE (repeatable)")
	fl.DurationVar(&f.ttl, "ttl", 0, "how long the sandbox may run (default: as the template says)")
	fl.BoolVar(&f.wait, "wait", false, "wait until the sandbox runs (or has completed), and for a place in the pool")
	fl.DurationVar(&f.timeout, "timeout", time.Minute, "how long to wait")
	fl.StringVarP(&f.output, "output", "o", "", "name or json")
	return cmd
}

// spec is that of the claim.
func (f *flags) spec(pool string, command []string) (map[string]any, error) {
	spec := map[string]any{"pool": strings.TrimPrefix(pool, objects.Name(objects.Pool, ""))}
	if len(command) > 0 {
		spec["command"] = command
	}
	var env []desired.EnvVar
	for _, text := range f.env {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, exit.Usagef("--env: expected NAME=VALUE, got %q", text)
		}
		env = append(slices.DeleteFunc(env, func(v desired.EnvVar) bool { return v.Name == name }), desired.EnvVar{Name: name, Value: value})
	}
	if len(env) > 0 {
		spec["env"] = env
	}
	switch {
	case f.ttl < 0:
		return nil, exit.Usagef("--ttl: expected at least 1s, got %s", f.ttl)
	case f.ttl > 0:
		spec["ttl"] = f.ttl.String()
	}
	volumes, err := oneoff.Mounts(f.volumes)
	if err == nil && len(volumes) > 0 {
		spec["volumes"] = volumes
	}
	return spec, err
}

func (f *flags) claim(ctx context.Context, h *world.Host, pool string, command []string) error {
	spec, err := f.spec(pool, command)
	if err != nil {
		return err
	}
	pool = fmt.Sprint(spec["pool"])
	name := cmp.Or(f.name, pool[:min(len(pool), 40)]+"-"+actual.NewUID()[:12])
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": desired.APIVersion, "kind": desired.ClaimKind, "metadata": map[string]any{"name": name}, "spec": spec,
	})
	if err != nil {
		return fmt.Errorf("encode the claim: %w", err)
	}
	if err := Check(ctx, h, text, !f.wait); err != nil {
		return err
	}
	ready := h.ReadyPlaces()[pool]
	if err := manifests.Put(ctx, h, text); err != nil {
		return err
	}
	if f.output == "" {
		fmt.Fprintf(h.Stdout, "sandbox/%s claimed from %s\n", name, objects.Name(objects.Pool, pool))
		if ready == 0 && !f.wait { // or the start itself tells
			fmt.Fprintf(h.Stdout, "%s has no place ready now: the sandbox is started cold\n", objects.Name(objects.Pool, pool))
		}
	}
	if f.wait {
		err = await.Until(ctx, h, []string{name}, await.Ready, f.timeout)
		if err != nil {
			fmt.Fprintf(h.Stderr, "sandboxctl: the claim stays; `sandboxctl delete %s` removes it\n", name)
		}
	}
	return cmp.Or(err, f.tell(ctx, h, name, pool))
}

// Check finds what keeps a claim from a sandbox: there is no such pool, the two do not fit together,
// or, if that is asked for, no more claims are allowed. What is wrong with the claim alone is for
// who writes it.
func Check(ctx context.Context, h *world.Host, text []byte, full bool) error {
	docs, problems := desired.Decode("manifest", text)
	if len(problems) > 0 || len(docs) != 1 || docs[0].Claim == nil {
		return nil
	}
	w, err := h.Once(ctx)
	if err != nil {
		return err
	}
	e := docs[0].Entry()
	e = expand.Claim(&e, w.In.Desired)
	c := e.Claim
	if c.Why != "" {
		hint := ""
		if pools := names(w); w.In.Desired.Objects.Lookup(objects.Name(objects.Pool, c.Pool)) == nil && len(pools) > 0 {
			hint = "; there are " + strings.Join(pools, ", ")
		}
		return fmt.Errorf("%s%s", show.Clean(c.Why), hint)
	}
	if !full {
		return nil
	}
	taken := places.Of(w.In.Desired, w.In.LastGood, w.In.Actual, w.In.Starts)
	if _, why := taken.Waits(&e); why != "" {
		return errors.New(show.Clean(why))
	}
	return nil
}

// names are those of all pools.
func names(w *world.World) (out []string) {
	for i := range w.In.Desired.Objects {
		if kind, name, _ := objects.Split(w.In.Desired.Objects[i].Name()); kind == objects.Pool {
			out = append(out, name)
		}
	}
	return out
}

// told is what is said of a claim that was made.
type told struct {
	Name string `json:"name"`
	Pool string `json:"pool"`
	// Warm says that the sandbox was started in a place that was ready, Cold why not. Neither is
	// known before its start.
	Warm bool   `json:"warm"`
	Cold string `json:"cold,omitempty"`
}

func (f *flags) tell(ctx context.Context, h *world.Host, name, pool string) error {
	t := told{Name: name, Pool: pool}
	if f.output == "name" {
		fmt.Fprintln(h.Stdout, name)
		return nil
	}
	if f.wait {
		w, err := h.Once(ctx)
		if err != nil {
			return err
		}
		t.Warm, t.Cold = Place(w.Record(name))
	}
	switch {
	case f.output == "json":
		return show.JSON(h.Stdout, t)
	case t.Warm:
		fmt.Fprintf(h.Stdout, "sandbox/%s was started in a place that was ready\n", name)
	case t.Cold != "":
		fmt.Fprintf(h.Stdout, "sandbox/%s was started cold: %s\n", name, show.Clean(t.Cold))
	}
	return nil
}

// Place says whether a sandbox was started in a place that was ready, and why not.
func Place(rec *actual.Record) (warm bool, cold string) {
	if rec == nil || rec.Start == nil {
		return false, ""
	}
	return rec.Start.Way != "" && rec.Start.Way != actual.WayCold, rec.Start.Why
}
