// SPDX-License-Identifier: Apache-2.0

package volumes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/launcher/volume"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A description says of each volume what it is, and of named ones what is in them; also
// where there is no state, where one was never made, and where one is damaged.
func TestDescribe(t *testing.T) {
	t.Parallel()
	h := &world.Host{State: t.TempDir() + "/s", Stderr: io.Discard}
	spec := &desired.Spec{Volumes: []desired.Volume{
		{MountPath: "/data", Volume: &desired.NamedVolume{Name: "data"}, SubPath: "a/b"},
		{MountPath: "/again", Volume: &desired.NamedVolume{Name: "data"}, ReadOnly: true},
		{MountPath: "/bad", Volume: &desired.NamedVolume{Name: "bad"}},
		{MountPath: "/none", Volume: &desired.NamedVolume{Name: "none"}},
		{MountPath: "/srv\x1b", HostPath: "/srv/web\x1b"},
		{MountPath: "/tmp", Tmpfs: &desired.Tmpfs{}},
		{MountPath: "/run", EmptyDir: &desired.EmptyDir{Medium: desired.MediumDisk}},
		{MountPath: "/big", EmptyDir: &desired.EmptyDir{Medium: desired.MediumMemory, Size: 5 << 20}, ReadOnly: true},
		{MountPath: "/etc/app", Config: &desired.FileSet{Name: "app"}},
		{MountPath: "/keys", Secret: &desired.FileSet{}},
	}}
	described := func(ctx context.Context) string {
		var out bytes.Buffer
		must(t, Describe(ctx, h, &out, spec, time.Now()))
		var lines []string
		for l := range strings.Lines(out.String()) {
			lines = append(lines, strings.Join(strings.Fields(l), " "))
		}
		return strings.Join(lines, "\n")
	}
	rest := "\n/srv hostPath /srv/web -\n/tmp tmpfs -\n/run emptyDir, disk -\n/big emptyDir, memory 5Mi (read-only) -\n/etc/app config app -\n/keys secret -"
	unmade := "it is made when the sandbox starts"
	if got, want := described(t.Context()), "\nVolumes:\nMOUNT SOURCE USAGE\n/data volume data, a/b "+unmade+"\n/again volume data (read-only) "+unmade+"\n/bad volume bad "+unmade+"\n/none volume none "+unmade+rest; got != want {
		t.Errorf("without a state directory:\n%s\nexpected\n%s", got, want)
	}

	store, err := actual.OpenStore(h.State)
	must(t, err)
	defer store.Close()
	dir := filepath.Join(h.State, volume.Directory)
	must(t, os.MkdirAll(dir+"/data/data/sub", 0o700))
	must(t, os.WriteFile(dir+"/data/data/sub/file", make([]byte, 8192), 0o600))
	must(t, os.WriteFile(dir+"/data/meta.json", []byte(`{"version":1,"name":"data"}`), 0o600))
	must(t, os.WriteFile(dir+"/data/progress.json", []byte(`{"began":"2026-01-02T03:04:05Z","files":15000}`), 0o600))
	must(t, os.MkdirAll(dir+"/bad/data", 0o700))
	must(t, os.WriteFile(dir+"/bad/meta.json", []byte(`{"ver`), 0o600))
	got := described(t.Context())
	for _, want := range []string{"/data volume data, a/b ", " in 3 files; its owner is being changed: 15000 files in ", "/again volume data (read-only) ", "/bad volume bad read meta.json", "/none volume none " + unmade, rest} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nexpected %q", got, want)
		}
	}
	// When the time is over it says what it knows by then.
	over, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	if got := described(over); !strings.Contains(got, "/data volume data, a/b more than ") {
		t.Error(got)
	}
}

func TestDescribeUsage(t *testing.T) {
	t.Parallel()
	entry := &volume.Entry{}
	for want, u := range map[string]used{
		"1.0Mi in 7 files":                   {entry: entry, usage: volume.Usage{Bytes: 1 << 20, Files: 7}},
		"more than 1.0Mi in 7 files":         {entry: entry, usage: volume.Usage{Bytes: 1 << 20, Files: 7, Partial: true}},
		"1.0Mi in 7 files, at most 2.0Mi":    {entry: &volume.Entry{Meta: volume.Meta{Size: 2 << 20}}, usage: volume.Usage{Bytes: 1 << 20, Files: 7}},
		"not known yet":                      {entry: entry, usage: volume.Usage{Partial: true}},
		"it is damaged":                      {entry: &volume.Entry{Problem: "it is damaged"}},
		"no luck":                            {err: errors.New("no luck")},
		"it is made when the sandbox starts": {err: fs.ErrNotExist},
	} {
		if got := u.describe(time.Now()); got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
}

// A disk that does not answer, whatever it is told, holds nobody up.
func TestDescribeHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		told, over := make(chan struct{}), make(chan struct{})
		defer close(over)
		got := inTime(t.Context(), func(ctx context.Context) map[string]used {
			<-ctx.Done()
			close(told)
			<-over
			return map[string]used{}
		})
		if got != nil {
			t.Errorf("known in time: %v", got)
		}
		<-told // or this is a deadlock
	})
}
