// SPDX-License-Identifier: Apache-2.0

package launcher

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/hostpolicy"
)

func hostPolicy(t *testing.T, lines string) *hostpolicy.Policy {
	t.Helper()
	p, problems := hostpolicy.Decode("policy.yaml", []byte("apiVersion: sandboxctl.dev/v1alpha1\nkind: HostPolicy\n"+lines))
	if p == nil {
		t.Fatal(problems)
	}
	return p
}

func manifest(change func(*desired.Spec)) *desired.Sandbox {
	s := &desired.Sandbox{APIVersion: desired.APIVersion, Kind: desired.Kind, Metadata: desired.Metadata{Name: "web"}}
	s.Spec.Root.Host = &desired.HostRoot{}
	s.Spec.Command = []string{"sh"}
	if change != nil {
		change(&s.Spec)
	}
	desired.Default(s)
	return s
}

// A create that the policy does not allow at that moment touches nothing.
func TestCreateDenied(t *testing.T) {
	t.Parallel()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	broken := errors.New("read host policy: it is broken")
	for want, policy := range map[string]func() (*hostpolicy.Policy, error){
		"spec.volumes[0].hostPath: the built-in host policy (/etc/sandboxctl/policy.yaml would change it) does not allow /home/x": nil,
		broken.Error(): func() (*hostpolicy.Policy, error) { return nil, broken },
	} {
		l, err := New(Options{Store: store, SentryPath: "/nonexistent/sentry", Policy: policy})
		if err != nil {
			t.Fatal(err)
		}
		sb := manifest(func(s *desired.Spec) { s.Volumes = []desired.Volume{{Name: "a", MountPath: "/a", HostPath: "/home/x"}} })
		err = l.Create(t.Context(), &desired.Entry{Sandbox: sb, Hash: desired.Hash(sb)}, nil, "")
		if err == nil || !strings.Contains(err.Error(), want) || operation.Permanent(err) {
			t.Errorf("%v, expected %q, not for ever", err, want)
		}
		if list, err := store.List(); err != nil || len(list.Records)+len(list.Quarantined)+len(list.Aborted) > 0 {
			t.Errorf("something is on record: %+v %v", list, err)
		}
	}
}
