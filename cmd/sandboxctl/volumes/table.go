// SPDX-License-Identifier: Apache-2.0

package volumes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/volume"
)

// usageTime is how long a description looks at the files of all volumes together, and
// answerTime how much longer it waits for a disk that does not answer.
const (
	usageTime  = 500 * time.Millisecond
	answerTime = 500 * time.Millisecond
)

// Describe prints the volumes of a sandbox: where each is, what it is and, of a named one,
// how much it holds. It takes usageTime, however many files there are.
func Describe(ctx context.Context, h *world.Host, out io.Writer, spec *desired.Spec, now time.Time) error {
	if len(spec.Volumes) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\nVolumes:")
	usage := inTime(ctx, func(ctx context.Context) map[string]used { return verbs{h}.usages(ctx, spec) })
	rows := make([][]string, len(spec.Volumes))
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		text := ""
		switch {
		case v.Volume != nil && usage == nil:
			text = "not known: the disk does not answer"
		case v.Volume != nil:
			text = usage[v.Volume.Name].describe(now)
		}
		rows[i] = []string{"  " + show.Clean(v.MountPath), show.Clean(source(v)), show.Clean(text)}
	}
	return show.Table(out, []string{"  MOUNT", "SOURCE", "USAGE"}, rows)
}

// source says what a volume is.
func source(v *desired.Volume) string {
	text := v.SourceField()
	switch {
	case v.Volume != nil:
		text += " " + v.Volume.Name
	case v.HostPath != "":
		text += " " + v.HostPath
	case v.EmptyDir != nil:
		text = "emptyDir, " + v.EmptyDir.Medium
		if v.EmptyDir.Size > 0 {
			text += " " + v.EmptyDir.Size.String()
		}
	case v.Tmpfs != nil:
		text = "tmpfs"
	case v.Config != nil:
		text = "config " + v.Config.Name
	case v.Secret != nil:
		text = "secret " + v.Secret.Name
	}
	if v.SubPath != "" {
		text += ", " + v.SubPath
	}
	if v.ReadOnly {
		text += " (read-only)"
	}
	return text
}

// used is what is known of a named volume.
type used struct {
	entry *volume.Entry
	usage volume.Usage
	err   error
}

// inTime is what is known of volumes, nil if their disk does not answer. An operator describes a
// sandbox because something is wrong, perhaps with that disk.
func inTime(ctx context.Context, look func(context.Context) map[string]used) map[string]used {
	ctx, cancel := context.WithTimeout(ctx, usageTime)
	defer cancel()
	done := make(chan map[string]used, 1)
	go func() { done <- look(ctx) }()
	late := time.NewTimer(usageTime + answerTime)
	defer late.Stop()
	select {
	case out := <-done:
		return out
	case <-late.C:
		return nil
	}
}

func (v verbs) usages(ctx context.Context, spec *desired.Spec) map[string]used {
	out := map[string]used{}
	s, err := v.look()
	if s != nil {
		defer s.Close()
	}
	for i := range spec.Volumes {
		named := spec.Volumes[i].Volume
		if named == nil {
			continue
		}
		if _, seen := out[named.Name]; seen {
			continue
		}
		u := used{err: err}
		if s != nil {
			u = s.used(ctx, named.Name)
		} else if err == nil {
			u.err = fs.ErrNotExist
		}
		out[named.Name] = u
	}
	return out
}

func (o *opened) used(ctx context.Context, name string) (u used) {
	if u.entry, u.err = o.Look(name); u.err != nil || u.entry.Problem != "" {
		return u
	}
	if q := o.Quota(&u.entry.Meta); q != nil { // the file system has counted
		u.usage = volume.Usage{Bytes: q.Bytes, Files: q.Files}
		return u
	}
	u.usage, u.err = o.Usage(ctx, name)
	if errors.Is(u.err, context.DeadlineExceeded) {
		u.usage.Partial, u.err = true, nil
	}
	return u
}

func (u used) describe(now time.Time) string {
	var parts []string
	switch {
	case errors.Is(u.err, volume.ErrNotFound), errors.Is(u.err, fs.ErrNotExist):
		return "it is made when the sandbox starts"
	case u.err != nil:
		return u.err.Error()
	case u.entry.Problem != "":
		return u.entry.Problem
	case u.usage.Partial && u.usage.Files == 0:
		parts = append(parts, "not known yet")
	case u.usage.Partial:
		parts = append(parts, fmt.Sprintf("more than %s in %d files", show.Bytes(u.usage.Bytes), u.usage.Files))
	default:
		parts = append(parts, fmt.Sprintf("%s in %d files", show.Bytes(u.usage.Bytes), u.usage.Files))
	}
	if u.entry.Size > 0 {
		parts[0] += ", at most " + show.Bytes(u.entry.Size)
	}
	if p := u.entry.Ownership; p != nil {
		parts = append(parts, fmt.Sprintf("its owner is being changed: %d files in %s so far", p.Files, show.Age(p.Began, now)))
	}
	return strings.Join(parts, "; ")
}
