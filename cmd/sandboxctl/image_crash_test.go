// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/sys/unix"

	it "sandboxctl.dev/launcher/image/imagetest"
)

// imageWorld is a state directory with images, and a program that dies where it is told.
type imageWorld struct {
	*testing.T
	bin, dir string
	ref      string // of an image in a registry
}

// imageScenario is a verb that is killed. before makes what there is.
type imageScenario struct {
	name         string
	before, verb []string
	// after are the images that there are in the end, when the verb has run again.
	after int
}

// imagePoints are the crash points that only the store of images passes: TestCrashImages
// kills its verbs there, and TestCrash the pulls of a daemon.
var imagePoints = []string{
	"pending-create", "pending-sync", "pending-rename", "pull-directory", "pull-create", "pull-write", "pull-rename", "pull-remove", "merge-write", "merge-punch",
}

// Every moment of a verb that changes the store is one at which it may be killed. Then it
// is called again, and all is as if it had not been.
func TestCrashImages(t *testing.T) {
	t.Parallel()
	bin, err := crashable()
	must(t, err)
	lower, upper := it.Tar(it.File("a", strings.Repeat("a", 10_000)), it.File("b", "b")), it.Tar(it.File(".wh.a", ""))
	ref, closeRegistry := serveImage(t, it.Config(nil, lower, upper), lower, upper)
	t.Cleanup(closeRegistry)
	root := t.TempDir()
	must(t, os.WriteFile(root+"/file", []byte("x"), 0o644))
	points := map[string]bool{}
	for _, s := range []imageScenario{
		{"pull", nil, []string{"pull", "-q", ref}, 1},
		{"import", nil, []string{"import", root, "web:1"}, 1},
		{"rm", []string{"pull", "-q", ref}, []string{"rm", ref}, 0},
		{"prune", []string{"import", root, "web:1"}, []string{"prune", "--all"}, 0},
	} {
		whole := imageWorld{t, bin, t.TempDir(), ref}
		for _, m := range whole.moments(s) {
			points[m.point] = true
			t.Run(s.name+" "+m.String(), func(t *testing.T) {
				t.Parallel()
				w := imageWorld{t, bin, t.TempDir(), ref}
				w.prepare(s)
				if out, err := w.run(m.String(), s.verb...); err == nil {
					t.Fatalf("it was not killed: %s", out)
				}
				w.check(s)
			})
		}
	}
	for _, p := range append([]string{"file-rename", "file-remove"}, imagePoints...) {
		if !points[p] {
			t.Errorf("no verb passes %s", p)
		}
	}
}

// serveImage is a registry with an image.
func serveImage(t *testing.T, config []byte, layers ...[]byte) (ref string, closeRegistry func()) {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	digest, blobs := it.Blobs(config, layers...)
	send := func(method, path string, body []byte) {
		r, err := http.NewRequest(method, s.URL+"/v2/web/"+path, strings.NewReader(string(body)))
		must(t, err)
		r.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		resp, err := http.DefaultClient.Do(r)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode >= 300 {
			t.Fatalf("%s %s: %s", method, path, resp.Status)
		}
	}
	for d, b := range blobs {
		if d != digest {
			send(http.MethodPost, "blobs/uploads/?digest="+d, b)
		}
	}
	send(http.MethodPut, "manifests/1", blobs[digest])
	return strings.TrimPrefix(s.URL, "http://") + "/web:1", s.Close
}

// run runs a verb, which dies at the moment of the plan.
func (w imageWorld) run(plan string, verb ...string) (string, error) {
	w.Helper()
	return runArmed(w.T, w.bin, w.dir, plan, append([]string{"image"}, verb...)...)
}

// runArmed runs a verb on the state directory in dir. It dies at the moment of the plan.
func runArmed(t *testing.T, bin, dir, plan string, args ...string) (string, error) {
	t.Helper()
	points := filepath.Join(dir, "points")
	must(t, os.MkdirAll(points, 0o755))
	must(t, os.WriteFile(points+"/plan", []byte(plan), 0o644))
	must(t, os.WriteFile(points+"/trace", nil, 0o644))
	if err := unix.Mkfifo(points+"/release", 0o600); err != nil && err != unix.EEXIST {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, append([]string{"--state", dir + "/s", "--manifests", dir + "/m"}, args...)...)
	cmd.Env = append(os.Environ(), "SANDBOXCTL_CRASHPOINTS="+points)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w imageWorld) prepare(s imageScenario) {
	w.Helper()
	if s.before != nil {
		if out, err := w.run("", s.before...); err != nil {
			w.Fatalf("%v\n%s", err, out)
		}
	}
}

// moments are those that a scenario passes: of each point the first and the last.
func (w imageWorld) moments(s imageScenario) []moment {
	w.Helper()
	w.prepare(s)
	if out, err := w.run("", s.verb...); err != nil {
		w.Fatalf("%v\n%s", err, out)
	}
	return firstAndLast(w.T, w.dir)
}

// firstAndLast are the moments that runArmed has passed: of each point the first and the last.
func firstAndLast(t *testing.T, dir string) []moment {
	t.Helper()
	b, err := os.ReadFile(dir + "/points/trace")
	must(t, err)
	first, last := map[string]moment{}, map[string]moment{}
	for line := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n") {
		m, ok := parseMoment(line)
		if !ok {
			t.Fatalf("the trace has %q", line)
		}
		if m.n == 1 {
			first[m.key()] = m
		}
		last[m.key()] = m
	}
	all := slices.AppendSeq(slices.Collect(maps.Values(first)), maps.Values(last))
	slices.SortFunc(all, func(a, b moment) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return slices.Compact(all)
}

// check calls the verb again, and looks at what is there.
func (w imageWorld) check(s imageScenario) {
	w.Helper()
	out, err := w.run("", s.verb...)
	// What was removed before it died can't be removed again.
	if err != nil && (s.name != "rm" || !strings.Contains(out, "not in the store")) {
		w.Errorf("again: %v\n%s", err, out)
	}
	// And for a sweep of what the first left.
	if out, err := w.run("", "prune"); err != nil && s.after == 0 {
		w.Errorf("prune: %v\n%s", err, out)
	}
	if s.name == "pull" { // which a prune removes
		if out, err := w.run("", s.verb...); err != nil {
			w.Errorf("%v\n%s", err, out)
		}
	}
	out, err = w.run("", "ls", "-o", "json")
	must(w.T, err)
	var list []struct{ Problem string }
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != s.after {
		w.Errorf("%d images, %v: %s", len(list), err, out)
	}
	for _, e := range list {
		if e.Problem != "" {
			w.Error(e.Problem)
		}
	}
	left := 0
	must(w.T, filepath.WalkDir(w.dir+"/s/images", func(p string, d os.DirEntry, err error) error {
		if err == nil && (!d.IsDir() || filepath.Base(filepath.Dir(p)) == "pulls") {
			left++
		}
		return err
	}))
	// An image is its tree, its description and its reference.
	if left != 3*s.after {
		w.Errorf("%d files are left of %d images", left, s.after)
	}
}
