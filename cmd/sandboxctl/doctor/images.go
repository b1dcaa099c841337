// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/image"
)

// checkImages looks at the store of images, and at who needs what is not in it.
func (d doctor) checkImages(ctx context.Context) []finding {
	const name = "images"
	out := d.checkRegistries(ctx)
	s, err := image.OpenStoreReadOnly(d.State)
	if errors.Is(err, fs.ErrNotExist) {
		return append(out, finding{name, levelOK, "none"})
	}
	if err != nil {
		return append(out, finding{name, levelError, err.Error()})
	}
	defer s.Close()
	all, err := s.List()
	if err != nil {
		return append(out, finding{name, levelError, err.Error()})
	}
	bytes, there := int64(0), map[string]bool{}
	for _, e := range all {
		if bytes += e.Bytes; e.Problem == "" {
			there[e.Digest] = true
			continue
		}
		out = append(out, finding{name, levelError, fmt.Sprintf("%s %s: %s; remove it and pull it again", e.Digest, strings.Join(e.Refs, " "), e.Problem)})
	}
	out = append(out, d.missingImages(there)...)
	if left, err := s.Leftovers(); err != nil {
		out = append(out, finding{name, levelError, err.Error()})
	} else if left.Pulls+left.Trees > 0 {
		out = append(out, finding{name, levelWarning, fmt.Sprintf("%d pulls are not complete and keep %s of layers for the next try; `sandboxctl image prune` removes them", left.Pulls+left.Trees, show.Bytes(left.Bytes))})
	}
	return append(out, finding{name, levelOK, fmt.Sprintf("%d in the store, %s", len(there), show.Bytes(bytes))})
}

// checkRegistries looks at the file that says how registries are spoken to: it has the
// program that reads it do so.
func (d doctor) checkRegistries(ctx context.Context) []finding {
	const name = "registries"
	path := image.RegistriesPath
	if daemon, _ := d.ReadDaemon(); daemon != nil && daemon.Registries != "" {
		path = daemon.Registries
	} else if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	program, err := companion.Find(companion.ImageName, "")
	if err != nil {
		return nil // told elsewhere
	}
	out, err := exec.CommandContext(ctx, program, "registries", path).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return []finding{{name, levelError, cmp.Or(text, err.Error())}}
	}
	return []finding{{name, levelOK, path + ": " + text}}
}

// missingImages are those that records name and the store has not.
func (d doctor) missingImages(there map[string]bool) (out []finding) {
	store, err := actual.OpenStoreReadOnly(d.State)
	if err != nil {
		return nil // told elsewhere
	}
	defer store.Close()
	list, err := store.List()
	if err != nil {
		return nil
	}
	for _, r := range list.Records {
		for _, c := range r.Containers {
			if c.Image != nil && !there[c.Image.Digest] {
				out = append(out, finding{"images", levelWarning, fmt.Sprintf("%s needs %s (%s), which is not in the store: it will be fetched when it starts again", r.Name, c.Image.Ref, c.Image.Digest)})
			}
		}
	}
	return out
}
