// SPDX-License-Identifier: Apache-2.0

package rootimage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/companion"
	"sandboxctl.dev/launcher/image"
	"sandboxctl.dev/launcher/proc/proctest"
	"sandboxctl.dev/launcher/wire"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// This test binary is also the program that pulls. The reference says what it does.
func TestMain(m *testing.M) {
	if os.Args[0] != companion.ImageName {
		os.Exit(m.Run())
	}
	if len(os.Args) == 2 && os.Args[1] == "version" {
		fmt.Println(wire.Handshake(wire.ImageName, wire.ImageProtocol, "v1"))
		os.Exit(0)
	}
	os.Exit(child(os.Args[1:]))
}

func child(args []string) int {
	if len(args) != 6 || args[0] != image.PullVerb || args[2] != "Always" {
		fmt.Fprintln(os.Stderr, "not the arguments of a pull:", args)
		return 9
	}
	if strings.Contains(args[3], "beneath") {
		fmt.Printf("{\"error\":%q}\n", "beneath "+cmp.Or(args[4], "nothing"))
		return 1
	}
	switch args[3] {
	case "good":
		fmt.Print(`{"step":{"Phase":"fetching","Done":1,`)
		fmt.Println(`"Total":4}}`)
		fmt.Println(`{"step":{"Phase":"merging","Done":2,"Total":4}}`)
		fmt.Printf("{\"digest\":%q}\n", digest)
	case "priority":
		nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		var score []byte
		var rerr error
		// It is set while this runs already.
		for rerr == nil && strings.TrimSpace(string(score)) != "500" {
			score, rerr = os.ReadFile("/proc/self/oom_score_adj")
		}
		fmt.Printf("{\"error\":%q}\n", fmt.Sprint(20-nice, " ", strings.TrimSpace(string(score)), " ", errors.Join(err, rerr)))
		return 1
	case "missing":
		fmt.Println(`{"error":"pull x: no such image","code":"missing"}`)
		return 1
	case "refused":
		fmt.Println(`{"error":"pull x: the registry denies access","code":"refused"}`)
		return 1
	case "escape":
		fmt.Println(`{"error":"a\u001b[2Jb"}`)
		return 1
	case "garbage":
		fmt.Println("<html>")
		waits()
	case "endless":
		for {
			fmt.Print(strings.Repeat("x", 1000))
		}
	case "nothing":
		fmt.Println(`{}`)
		waits()
	case "more":
		fmt.Printf("{\"digest\":%q}\n{\"digest\":%q}\n", digest, digest)
		waits()
	case "rubbish":
		fmt.Println(`{"digest":"../../etc"}`)
	case "silent": // and has ended
	case "failed":
		fmt.Printf("{\"digest\":%q}\n", digest)
		return 3
	case "panic":
		panic("of the puller" + strings.Repeat(" and more", 10000))
	case "killed":
		err := unix.Exec("/bin/sh", []string{"sh", "-c", "kill -KILL $$"}, nil)
		fmt.Fprintln(os.Stderr, err)
	case "hangs":
		waits()
	case "obeys":
		fmt.Println(`{"step":{"Phase":"waiting"}}`)
		_, _ = io.Copy(io.Discard, os.Stdin)
		return 1
	}
	return 0
}

func waits() { time.Sleep(time.Hour) }

func newPuller(t *testing.T) Puller {
	t.Helper()
	path := filepath.Join(t.TempDir(), companion.ImageName)
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = proctest.WriteProgram(path, self, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return Puller{Program: &companion.Program{Name: companion.ImageName, Path: path}, State: t.TempDir(), Silence: time.Minute, Grace: time.Millisecond}
}

func request(ref string) imageref.PullRequest {
	return imageref.PullRequest{Ref: ref, Policy: imageref.PullAlways}
}

// Whatever becomes of the process of a pull, it is an error that says so, or the image.
func TestPuller(t *testing.T) {
	t.Parallel()
	p := newPuller(t)
	var steps []operation.PullStep
	got, err := p.Pull(t.Context(), request("good"), func(s operation.PullStep) { steps = append(steps, s) })
	if err != nil || got != digest || fmt.Sprint(steps) != "[{fetching 25 % false} {merging 50 % true}]" {
		t.Errorf("%q, %v, %v", got, steps, err)
	}
	for ref, want := range map[string]string{
		"priority": "10 500 <nil>",
		"missing":  "no such image",
		"refused":  "denies access",
		"escape":   "[2Jb",
		"garbage":  `it printed "<html>"`,
		"endless":  "has no end",
		"nothing":  "an empty report",
		"more":     "after its result",
		"rubbish":  "instead of a digest",
		"silent":   "without a result",
		"failed":   "exit status 3",
		"panic":    "panic: of the puller",
		"killed":   "signal: killed",
	} {
		t.Run(ref, func(t *testing.T) {
			t.Parallel()
			got, err := p.Pull(t.Context(), request(ref), func(operation.PullStep) {})
			if err == nil || got != "" || !strings.Contains(err.Error(), want) || len(err.Error()) > 1000 || strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("%q, %v, expected %q", got, err, want)
			}
			if errors.Is(err, operation.ErrImageNotFound) != (ref == "missing") {
				t.Errorf("%v: does it say that there is no such image?", err)
			}
			if operation.PreconditionFailed(err) != (ref == "refused") {
				t.Errorf("%v: does it say that somebody has to change something?", err)
			}
		})
	}
	pinned := request("good")
	pinned.Digest = "sha256:" + strings.Repeat("0", 64)
	if _, err := p.Pull(t.Context(), pinned, func(operation.PullStep) {}); err == nil || !strings.Contains(err.Error(), "expected "+pinned.Digest) || !operation.PreconditionFailed(err) {
		t.Errorf("another digest: %v", err)
	}
}

// A pull that is cancelled, or that says nothing, ends.
func TestPullerEnds(t *testing.T) {
	t.Parallel()
	p := newPuller(t)
	why := errors.New("nobody wants it")
	for _, ref := range []string{"hangs", "obeys"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := context.AfterFunc(t.Context(), func() { cancel(nil) })
		report := func(operation.PullStep) { cancel(why) }
		if ref == "hangs" {
			time.AfterFunc(100*time.Millisecond, func() { cancel(why) })
		}
		if _, err := p.Pull(ctx, request(ref), report); !errors.Is(err, why) {
			t.Errorf("%s: %v", ref, err)
		}
		stop()
	}
	p.Silence = 100 * time.Millisecond
	if _, err := p.Pull(t.Context(), request("hangs"), func(operation.PullStep) {}); !errors.Is(err, errSilent) {
		t.Errorf("silent: %v", err)
	}
}

// The program is told below which path of the policy a local reference is opened, and is
// not started for one that the policy does not allow now.
func TestPullerBeneath(t *testing.T) {
	t.Parallel()
	p := newPuller(t)
	var broken error
	p.Policy = func() (*hostpolicy.Policy, error) {
		policy := hostpolicy.Default()
		policy.Root.ImagePaths = []hostpolicy.AllowedPath{{Path: "/srv/images", Access: hostpolicy.AccessReadOnly}}
		return policy, broken
	}
	for ref, want := range map[string]string{
		"oci:/srv/images/beneath:1":     "beneath /srv/images",
		"archive:/srv/images/a/beneath": "beneath /srv/images",
		"local:beneath":                 "beneath nothing",
		"example.com/beneath":           "beneath nothing",
		"oci:/srv/image":                "does not allow /srv/image;",
		"archive:/srv/images2/a":        "does not allow /srv/images2/a;",
	} {
		if _, err := p.Pull(t.Context(), request(ref), func(operation.PullStep) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", ref, err, want)
		}
	}
	broken = errors.New("half written")
	if _, err := p.Pull(t.Context(), request("oci:/srv/images/a"), func(operation.PullStep) {}); !errors.Is(err, broken) {
		t.Errorf("without a policy: %v", err)
	}
}

// A program that is not there, or of another release, pulls nothing.
func TestPullerProgram(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{"/nowhere": "no such file", "/bin/true": "expected a sandboxctl-image"} {
		p := Puller{Program: &companion.Program{Name: companion.ImageName, Path: path}, State: t.TempDir()}
		if _, err := p.Pull(t.Context(), request("good"), func(operation.PullStep) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
