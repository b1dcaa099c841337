// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/client/protocol"
	"sandboxctl.dev/desired/imageref"
)

// What a user of the group may ask for beside what a manifest may: nothing of the host, and of
// other sandboxes what the policy names for clients. Root may ask for all of it.
func TestJudge(t *testing.T) {
	t.Parallel()
	policy := &policyWith(t, "group: '4242', maxTime: 1m, networks: [front], volumes: [cache]").Clients
	run := func(s protocol.Sandbox) *protocol.Request {
		return &protocol.Request{Op: protocol.OpRun, Sandbox: &s, Command: &protocol.Command{Args: []string{"true"}}}
	}
	named := func(name string) *protocol.Request {
		r := run(protocol.Sandbox{})
		r.Name = name
		return r
	}
	timed := func(d time.Duration) *protocol.Request {
		r := run(protocol.Sandbox{})
		r.Timeout = d
		return r
	}
	for what, c := range map[string]struct {
		r    *protocol.Request
		want string // "" if it may
	}{
		"nothing":            {run(protocol.Sandbox{}), ""},
		"an image":           {run(protocol.Sandbox{Image: "docker.io/library/alpine:3", Memory: "64Mi", CPU: "1", Labels: map[string]string{"a": "b"}}), ""},
		"an imported image":  {run(protocol.Sandbox{Image: "local:box"}), ""},
		"an image of files":  {run(protocol.Sandbox{Image: "oci:/srv/sandboxctl/x"}), "image: files of the host are for root"},
		"an archive":         {run(protocol.Sandbox{Image: "archive:/srv/sandboxctl/x.tar"}), "image: files of the host are for root"},
		"a root":             {run(protocol.Sandbox{RootDir: "/srv/sandboxctl"}), "rootDir: directories of the host are for root"},
		"a path":             {run(protocol.Sandbox{Volumes: []string{"cache:/c", "/srv/sandboxctl:/x:ro"}}), "volumes: paths of the host are for root"},
		"a volume":           {run(protocol.Sandbox{Volumes: []string{"cache:/c"}}), ""},
		"another volume":     {run(protocol.Sandbox{Volumes: []string{"db:/c"}}), `volumes: the host policy does not allow the volume "db"`},
		"no network":         {run(protocol.Sandbox{Network: "none"}), ""},
		"a network":          {run(protocol.Sandbox{Network: "front", Egress: []string{"10.0.0.0/8"}}), ""},
		"another network":    {run(protocol.Sandbox{Network: "back"}), `network: the host policy does not allow "back"`},
		"the usual network":  {run(protocol.Sandbox{Egress: []string{"10.0.0.0/8"}}), `network: the host policy does not allow "default"`},
		"the host's network": {run(protocol.Sandbox{Network: "host"}), "network: the host's network is for root"},
		"a name":             {named("run-mine"), ""},
		"a name of root's":   {named("web"), `name: expected one that begins with "run-"`},
		"a time":             {timed(time.Second), ""},
		"too long a time":    {timed(time.Hour), "timeout: the host policy allows 1m0s"},
		"a list":             {&protocol.Request{Op: protocol.OpList}, ""},
	} {
		err := (&peer{uid: 4000}).judge(c.r, policy)
		e, typed := errors.AsType[*protocol.Error](err)
		if (err == nil) != (c.want == "") || err != nil && (!typed || e.Kind != protocol.KindRefused || !strings.HasPrefix(e.Message, c.want)) {
			t.Errorf("%s: %v", what, err)
		}
		if err := (&peer{}).judge(c.r, policy); err != nil {
			t.Errorf("%s, for root: %v", what, err)
		}
	}
	// What is not in the store is fetched for those whom the policy names it for.
	policy.Images = []string{"docker.io/library", "ghcr.io"}
	for image, want := range map[string]imageref.PullPolicy{
		"alpine:3": "", "docker.io/library/alpine": "", "ghcr.io/a/b:1": "", "local:box": "", "": "",
		"docker.io/library2/alpine": imageref.PullNever, "somebody/alpine": imageref.PullNever, "quay.io/a@sha256:" + strings.Repeat("a", 64): imageref.PullNever,
	} {
		user, root := &peer{uid: 4000}, &peer{}
		r := run(protocol.Sandbox{Image: image})
		if err := errors.Join(user.judge(r, policy), root.judge(r, policy)); err != nil || user.pull != want || root.pull != "" {
			t.Errorf("%s: %q for a user, %q for root (%v)", image, user.pull, root.pull, err)
		}
	}
	if user := (&peer{uid: 4000}); user.judge(run(protocol.Sandbox{Image: "alpine:3"}), &policyWith(t, "group: '4242'").Clients) != nil || user.pull != imageref.PullNever {
		t.Errorf("without images in the policy: %q", user.pull)
	}
	// No time is the longest one for a user, and none for root.
	users, roots := timed(0), timed(0)
	if err := errors.Join((&peer{uid: 4000}).judge(users, policy), (&peer{}).judge(roots, policy)); err != nil || users.Timeout != time.Minute || roots.Timeout != 0 {
		t.Errorf("%v: %s for a user, %s for root", err, users.Timeout, roots.Timeout)
	}
}
