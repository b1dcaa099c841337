// SPDX-License-Identifier: Apache-2.0

package oneoff

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/desired"
)

func decode(t *testing.T, o *Options) *desired.Sandbox {
	t.Helper()
	text, caller, err := o.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	docs, problems := desired.Decode(o.Name+".yaml", text)
	if len(problems) > 0 || len(docs) != 1 {
		t.Fatalf("%v in\n%s", problems, text)
	}
	e := &desired.Entry{Sandbox: docs[0].Sandbox, Source: docs[0].Position}
	if id := Caller(e); id == nil || *id != caller || caller.PID != os.Getpid() {
		t.Errorf("it is for %+v, expected this process, %+v", id, caller)
	}
	return docs[0].Sandbox
}

// What is asked for is in the manifest, and what is not has the strictest value there is.
func TestManifest(t *testing.T) {
	t.Parallel()
	sb := decode(t, &Options{})
	if s := sb.Spec; !strings.HasPrefix(sb.Metadata.Name, "run-") || s.Root.Host == nil || s.Network.Mode != "none" || s.RestartPolicy != desired.RestartNever ||
		s.ActiveDeadline != nil || len(s.Volumes) != 0 || s.Resources != (desired.Resources{}) || *s.TerminationGracePeriod != 0 {
		t.Errorf("%+v", sb)
	}
	if other := decode(t, &Options{}); other.Metadata.Name == sb.Metadata.Name {
		t.Errorf("two sandboxes have the name %s", other.Metadata.Name)
	}
	sb = decode(t, &Options{
		Name: "mine", Image: "local:box", PullPolicy: "Never", Memory: "64Mi", CPU: "500m", Timeout: time.Minute,
		Volumes: []string{"/srv/a:/a", "data:/b:ro", "./c:/c"}, Network: "front", Egress: []string{"example.org:443"},
	})
	s := sb.Spec
	if sb.Metadata.Name != "mine" || s.Root.Image == nil || s.Root.Image.Ref != "local:box" || s.Root.Image.PullPolicy != "Never" || s.Resources.Memory != 64<<20 || s.Resources.CPU != 500 ||
		time.Duration(*s.ActiveDeadline) != time.Minute+beyond {
		t.Errorf("%+v", sb)
	}
	here, err := filepath.Abs("c")
	if err != nil {
		t.Fatal(err)
	}
	if v := s.Volumes; len(v) != 3 || v[0].HostPath != "/srv/a" || v[0].MountPath != "/a" || v[0].ReadOnly || v[1].Volume == nil || v[1].Volume.Name != "data" || v[1].MountPath != "/b" || !v[1].ReadOnly ||
		v[2].HostPath != here {
		t.Errorf("%+v", v)
	}
	if n := s.Network; n.Mode != "bridge" || len(n.Join) != 1 || n.Join[0] != "front" || n.Egress == nil || n.Egress.Default != "deny" || len(n.Egress.Allow) != 1 {
		t.Errorf("%+v", n)
	}
	if n := decode(t, &Options{Egress: []string{"10.0.0.0/8"}}).Spec.Network; n.Mode != "bridge" || n.Join[0] != "default" || n.Egress.Default != "deny" {
		t.Errorf("%+v", n)
	}
	if n := decode(t, &Options{Network: "none"}).Spec.Network; n.Mode != "none" {
		t.Errorf("%+v", n)
	}
	if s := decode(t, &Options{Root: "box"}).Spec; !filepath.IsAbs(s.Root.Dir) {
		t.Errorf("%+v", s.Root)
	}
}

// What contradicts itself is refused, and no part of it is dropped.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{
		{Image: "local:box", Root: "/srv/box"},
		{Timeout: -1},
		{Network: "none", Egress: []string{"10.0.0.0/8"}},
		{Network: "host", Egress: []string{"10.0.0.0/8"}},
		{Volumes: []string{"x"}},
		{Volumes: []string{":/x"}},
		{Volumes: []string{"x:y"}},
		{Volumes: []string{"x:/y:rw,z"}},
		{Volumes: []string{"x:"}},
	} {
		text, _, err := o.Manifest()
		if e, ok := errors.AsType[*exit.Error](err); !ok || e.Code != exit.Usage {
			t.Errorf("%+v: %v\n%s", o, err, text)
		}
	}
}
