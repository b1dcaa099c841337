// SPDX-License-Identifier: Apache-2.0

package images

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/image/puller"
)

func (v *Verbs) pullCommand() *cobra.Command {
	var quiet, missing bool
	cmd := &cobra.Command{
		Use:   "pull REFERENCE...",
		Short: "Fetch images",
		Long: `Fetch images into the store. The source is asked what each reference means now; what
the store has is not fetched again. A sandbox that runs keeps the image that it has.

Credentials are those of docker and podman: log in with "docker login" or "podman login".
How registries are spoken to, mirrors for one, is in the file that the daemon was told to
use, or ` + image.RegistriesPath + `.
An interrupted pull resumes where it ended.`,
		Example: `  sandboxctl image pull docker.io/library/nginx:1.27 ghcr.io/team/web@sha256:DIGEST
  sandboxctl image pull oci:./layout:v1
  docker save web:1 -o web.tar && sandboxctl image pull archive:web.tar`,
		Args: some("REFERENCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := v.open()
			if err != nil {
				return err
			}
			defer s.Close()
			policy := imageref.PullAlways
			if missing {
				policy = imageref.PullIfNotPresent
			}
			return each(cmd.Context(), args, func(arg string) error {
				ref, err := normalize(arg)
				if err != nil {
					return err
				}
				p := v.progress(ref, quiet)
				img, err := s.Resolve(cmd.Context(), puller.Request{Ref: ref, Pull: policy}, p.tell)
				p.end()
				if err != nil {
					return err
				}
				return v.done(img)
			})
		},
	}
	v.registriesFlag(cmd)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	cmd.Flags().BoolVar(&missing, "missing", false, "fetch only what the store does not have")
	return cmd
}

func (v *Verbs) registriesFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&v.registries, "registries", "", "how registries are spoken to (default: the daemon's, "+image.RegistriesPath+" if there is one)")
}

// done tells what came, and closes the image.
func (v *Verbs) done(img *image.Image) error {
	defer img.Close()
	fmt.Fprintf(v.Stdout, "%s %s\n", show.Clean(img.Ref), img.Digest)
	if what := lacks(img.Info.Dropped); what != "" {
		fmt.Fprintf(v.Stderr, "warning: %s: gVisor can't serve all of it: without %s\n", show.Clean(img.Ref), what)
	}
	return nil
}

// lacks says what of an image is not in the store.
func lacks(d image.Dropped) (what string) {
	for _, l := range []struct {
		n    int
		what string
	}{{d.Devices, "devices"}, {d.Xattrs, "files' extended attributes"}, {d.Capabilities, "files' capabilities"}} {
		if l.n > 0 {
			if what != "" {
				what += ", "
			}
			what += fmt.Sprintf("%d %s", l.n, l.what)
		}
	}
	return what
}

func (v *Verbs) importCommand() *cobra.Command {
	var c image.Config
	cmd := &cobra.Command{
		Use:   "import DIRECTORY|FILE|- NAME",
		Short: "Make an image of a root file system",
		Long: `Make an image of a root file system, a directory or a tar of one ("-" reads it from
stdin; gzip and zstd are understood). It is called local:NAME, in manifests too. The same
root and flags give the same image.

Links in a directory are not followed. File systems that are mounted in it, devices and
sockets are left out.`,
		Example: `  debootstrap --variant=minbase trixie ./root && sandboxctl image import ./root debian:13
  sandboxctl image import web.tar web:1 --entrypoint /bin/web --env PORT=80 --user 1000
  docker export mine | sandboxctl image import - mine`,
		Args: exit.Args("DIRECTORY, FILE or -", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := normalize("local:" + args[1])
			if err != nil {
				return err
			}
			s, err := v.open()
			if err != nil {
				return err
			}
			defer s.Close()
			p := v.progress(ref, false)
			img, err := v.importRoot(cmd, s, args[0], ref, c, p.tell)
			p.end()
			if err != nil {
				return err
			}
			return v.done(img)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&c.Entrypoint, "entrypoint", nil, "program, and its first arguments; may be repeated")
	f.StringArrayVar(&c.Cmd, "cmd", nil, "arguments that args of a manifest replace; may be repeated")
	f.StringArrayVar(&c.Env, "env", nil, "NAME=VALUE; may be repeated")
	f.StringVar(&c.User, "user", "", "user, by name or number, and group: USER[:GROUP]")
	f.StringVar(&c.WorkingDir, "workdir", "", "working directory")
	f.StringVar(&c.StopSignal, "stop-signal", "", "signal that asks it to end")
	f.StringToStringVar(&c.Labels, "label", nil, "NAME=VALUE; may be repeated")
	return cmd
}

func (v *Verbs) importRoot(cmd *cobra.Command, s *puller.Puller, from, ref string, c image.Config, tell image.Progress) (*image.Image, error) {
	ctx := cmd.Context()
	if from == "-" {
		return s.Import(ctx, ref, cmd.InOrStdin(), c, tell)
	}
	st, err := os.Stat(from)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return s.ImportDirectory(ctx, ref, from, c, tell)
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return s.Import(ctx, ref, io.Reader(f), c, tell)
}
