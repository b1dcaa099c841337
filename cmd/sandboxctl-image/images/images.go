// SPDX-License-Identifier: Apache-2.0

// Package images has the verbs for the store of images. They need no daemon: the store is
// made for several processes.
package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/entry"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/puller"
)

// Verbs are the verbs of one run of the program.
type Verbs struct {
	Stdout, Stderr io.Writer
	// State is the state directory.
	State string
	// UserAgent is how the program calls itself to registries.
	UserAgent string

	registries string
}

// Command is the verb image, with its own verbs.
func (v *Verbs) Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Fetch, list and remove images",
		Long: `Fetch, list and remove images. An image is one read-only file in the state directory,
which all sandboxes of the image share. Nothing of it is unpacked.

A reference is REGISTRY/NAME:TAG or NAME@sha256:DIGEST of a registry, oci:DIRECTORY of a
layout of OCI, archive:FILE of what docker save, podman save or skopeo have written, or
local:NAME of an image that was imported.`,
		Example: `  sandboxctl image pull docker.io/library/nginx:1.27
  sandboxctl image ls
  sandboxctl image prune`,
		Args: exit.VerbArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(v.pullCommand(), v.lsCommand(), v.inspectCommand(), v.rmCommand(), v.pruneCommand(), v.importCommand(), v.verifyCommand())
	for verb, advice := range map[string]string{
		"load":    "`sandboxctl image pull archive:FILE` reads what docker save and podman save have written",
		"build":   "build images with docker, podman or buildah; `sandboxctl image import` makes one of a directory",
		"push":    "images are here to be run; push them with the tool that has made them",
		"save":    "images are here to be run; save them with the tool that has made them",
		"tag":     "a reference is where an image came from; `sandboxctl image import` gives names",
		"history": "see `sandboxctl image inspect REFERENCE`",
	} {
		cmd.AddCommand(entry.Pointer(verb, advice))
	}
	entry.CompleteOutputs(cmd)
	return cmd
}

// open opens the store to change it.
func (v *Verbs) open() (*puller.Puller, error) {
	switch {
	case v.registries != "":
		path, err := filepath.Abs(v.registries)
		if err != nil {
			return nil, err
		}
		v.registries = path
	default:
		v.registries = daemonRegistries(v.State)
	}
	s, err := image.OpenStore(v.State)
	if err != nil {
		return nil, err
	}
	return puller.New(s, puller.Options{RegistriesFile: v.registries, UserAgent: v.UserAgent}), nil
}

// daemonRegistries is the file that the daemon was told to use, "" for that of the system.
// What is pulled by hand comes from where the daemon would have it from.
func daemonRegistries(state string) string {
	s, err := actual.OpenStoreReadOnly(state)
	if err != nil {
		return "" // nothing has run yet
	}
	defer s.Close()
	info, _, err := s.DaemonInfo()
	if err != nil || info == nil {
		return ""
	}
	return info.Registries
}

// look opens the store to look at it: nil if there is none.
func (v *Verbs) look() (*image.Store, error) {
	s, err := image.OpenStoreReadOnly(v.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return s, err
}

// normalize makes the path of a local reference absolute: it is that of the caller's
// directory, and means the same from everywhere.
func normalize(ref string) (string, error) {
	kind, path, ok := strings.Cut(ref, ":")
	if ok && (imageref.Kind(kind) == imageref.Layout || imageref.Kind(kind) == imageref.Archive) && path != "" && !filepath.IsAbs(path) {
		abs, err := filepath.Abs(path)
		if err != nil {
			return "", err
		}
		ref = kind + ":" + abs
	}
	r, err := imageref.Normalize(ref)
	if err != nil {
		return "", &exit.Error{Code: exit.Usage, Err: err}
	}
	return r.String(), nil
}

// users are the names of the sandboxes whose records name an image, by digest. A record
// that can't be read may name any.
func (v *Verbs) users() (map[string][]string, error) {
	out := map[string][]string{}
	store, err := actual.OpenStoreReadOnly(v.State)
	if errors.Is(err, actual.ErrNoState) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer store.Close()
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	for _, r := range list.Records {
		for _, c := range r.Containers {
			if c.Image != nil {
				out[c.Image.Digest] = append(out[c.Image.Digest], r.Name)
			}
		}
	}
	for digest := range out {
		slices.Sort(out[digest])
	}
	if len(list.Quarantined) > 0 {
		return out, fmt.Errorf("%d records can't be read and may name any image; see `sandboxctl get`, and `sandboxctl repair`", len(list.Quarantined))
	}
	return out, nil
}

// inUse is users for the store.
func (v *Verbs) inUse() (map[string]bool, error) {
	users, err := v.users()
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for digest := range users {
		out[digest] = true
	}
	return out, nil
}

// find finds what an argument means: a reference, a digest, or the beginning of one, with
// or without "sha256:".
func find(s *image.Store, arg string) (*image.Entry, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	ref, rerr := normalize(arg)
	var found []*image.Entry
	for i := range all {
		if rerr == nil && slices.Contains(all[i].Refs, ref) {
			return &all[i], nil
		}
		if prefix := strings.TrimPrefix(arg, "sha256:"); len(prefix) >= shortest && strings.HasPrefix(strings.TrimPrefix(all[i].Digest, "sha256:"), prefix) {
			found = append(found, &all[i])
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %s; `sandboxctl image ls` lists what is there; give at least %d digits of a digest", image.ErrNotFound, arg, shortest)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%d images begin with %s", len(found), arg)
}

// shortest is how much of a digest must be given.
const shortest = 6

// complete completes the references in the store.
func (v *Verbs) complete(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := v.look()
	if s == nil || err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer s.Close()
	tags, err := s.Tags()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, t := range tags {
		if !slices.Contains(args, t.Ref) {
			out = append(out, t.Ref)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// some refuses a verb without arguments.
func some(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return exit.Usagef("expected %s", what)
		}
		return nil
	}
}

// each does something for every argument, also after an error.
func each(ctx context.Context, args []string, do func(arg string) error) error {
	var errs []error
	for _, a := range args {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		errs = append(errs, do(a))
	}
	return errors.Join(errs...)
}
