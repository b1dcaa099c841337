// SPDX-License-Identifier: Apache-2.0

package declared

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sandboxctl.dev/desired"
)

const head = "apiVersion: " + desired.APIVersion + "\n"

func volume(fields string) string {
	return head + "kind: Volume\nmetadata: {name: data}\nspec: {" + fields + "}\n"
}

func sandbox(size string) string {
	return head + "kind: Sandbox\nmetadata: {name: web}\nspec:\n  root: {host: {}}\n  command: [a]\n  volumes: [{mountPath: /d, volume: {name: data" + size + "}}]\n"
}

func snapshot(t *testing.T, texts ...string) *desired.Snapshot {
	t.Helper()
	docs, problems := desired.Decode("m.yaml", []byte(strings.Join(texts, "---\n")))
	if len(problems) > 0 && len(texts) > 0 {
		t.Fatal(problems)
	}
	s := &desired.Snapshot{Complete: true}
	for i := range docs {
		if d := &docs[i]; d.Sandbox != nil {
			s.Entries = append(s.Entries, d.Entry())
		} else {
			s.Objects = append(s.Objects, desired.Object{Object: d.Object, Declared: d.Declared})
		}
	}
	return s
}

// A volume is made for its document, and has the size that somebody gives it. What nobody
// declares is left as it is, and nothing removes a volume.
func TestDecide(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	there := func(size int64) map[string]Found { return map[string]Found{"data": {Exists: true, Size: size}} }
	none := map[string]Found{"data": {}}
	failed := func(size int64, in time.Duration) map[string]Retry {
		return map[string]Retry{"data": {Failures: 1, Size: size, Due: now.Add(in), Message: "no room"}}
	}
	const gi = 1 << 30
	for name, c := range map[string]struct {
		docs    []string
		found   map[string]Found
		retries map[string]Retry
		want    string
	}{
		"nothing":                 {nil, there(gi), nil, ""},
		"no document":             {[]string{sandbox("")}, none, nil, ""},
		"made":                    {[]string{volume("")}, none, nil, "make data 0"},
		"made with a size":        {[]string{volume("size: 1Gi")}, none, nil, "make data 1Gi"},
		"size of a sandbox":       {[]string{volume(""), sandbox(", size: 1Gi")}, none, nil, "make data 1Gi"},
		"there":                   {[]string{volume("")}, there(gi), nil, ""},
		"there with the size":     {[]string{volume("size: 1Gi")}, there(gi), nil, ""},
		"grows":                   {[]string{volume("size: 2Gi")}, there(gi), nil, "resize data 2Gi"},
		"shrinks":                 {[]string{volume("size: 1Gi"), sandbox("")}, there(2 * gi), nil, "resize data 1Gi"},
		"of a sandbox":            {[]string{sandbox(", size: 2Gi")}, there(0), nil, "resize data 2Gi"},
		"of a sandbox, not there": {[]string{sandbox(", size: 2Gi")}, none, nil, ""},
		"not known":               {[]string{volume("size: 2Gi")}, map[string]Found{}, nil, ""},
		"failed":                  {[]string{volume("")}, none, failed(0, time.Second), "later make data 0 no room"},
		"due":                     {[]string{volume("")}, none, failed(0, 0), "make data 0"},
		"failed with another":     {[]string{volume("size: 2Gi")}, none, failed(gi, time.Second), "make data 2Gi"},
		"clock was set back":      {[]string{volume("")}, none, failed(0, time.Hour), "make data 0"},
	} {
		s := snapshot(t, c.docs...)
		do, later, wake := Decide(s, c.found, c.retries, now)
		got := ""
		for _, a := range do {
			got += fmt.Sprintf("%s %s %s", a.Op(), a.Name, scalarBytes(a.Size))
		}
		for _, l := range later {
			got += fmt.Sprintf("later %s %s %s %s", l.Op(), l.Name, scalarBytes(l.Size), l.Why)
		}
		if got != c.want || wake.IsZero() == (len(later) > 0) {
			t.Errorf("%s: %q, expected %q (wake %s)", name, got, c.want, wake)
		}
		s.Reason = desired.ReasonPolicyUnusable
		if do, later, _ := Decide(s, c.found, c.retries, now); len(do)+len(later) > 0 {
			t.Errorf("%s: done without a policy", name)
		}
	}
	if Names(snapshot(t, sandbox(""))) != nil {
		t.Error("a volume that nobody declares is looked at")
	}
}

func scalarBytes(n int64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%dGi", n>>30)
}

// It is tried again later and later, and at once with another size.
func TestRetry(t *testing.T) {
	t.Parallel()
	var r Retry
	now := time.Unix(1000, 0)
	var last time.Duration
	for n := range 10 {
		r.Failed(&Action{Size: 5}, errors.New(strings.Repeat("x", 1000)), now)
		if wait := r.Due.Sub(now); wait < last || wait > mostDelay || r.Failures != n+1 || len(r.Message) > mostMessage {
			t.Errorf("%d: %s after %s, %d bytes", n, wait, last, len(r.Message))
		} else {
			last = wait
		}
	}
	if r.Failed(&Action{Size: 6}, errors.New("x"), now); r.Failures != 1 {
		t.Errorf("%+v", r)
	}
}

// A volume whose document has a problem is not made by a sandbox, which would give it away for
// good by what the document does not say; one that is there is used.
func TestWaits(t *testing.T) {
	t.Parallel()
	there, none := map[string]Found{"data": {Exists: true}}, map[string]Found{"data": {}}
	bad := volume("size: 5") // too small
	for name, c := range map[string]struct {
		docs  []string
		found map[string]Found
		waits bool
	}{
		"no document":         {[]string{sandbox("")}, none, false},
		"a document":          {[]string{sandbox(""), volume("size: 1Gi")}, none, false},
		"a broken one":        {[]string{sandbox(""), bad}, none, true},
		"with a size":         {[]string{sandbox(", size: 1Gi"), bad}, none, true},
		"the volume is there": {[]string{sandbox(""), bad}, there, false},
		"nobody has looked":   {[]string{sandbox(""), bad}, nil, false},
		"of another volume":   {[]string{sandbox(""), strings.Replace(bad, "data", "other", 1)}, none, false},
		"of another kind":     {[]string{sandbox(""), head + "kind: Config\nmetadata: {name: data}\ndata: [a]\n"}, none, false},
	} {
		docs, problems := desired.Decode("m.yaml", []byte(strings.Join(c.docs, "---\n")))
		s := &desired.Snapshot{Problems: problems}
		for i := range docs {
			if d := &docs[i]; d.Sandbox != nil {
				s.Entries = append(s.Entries, d.Entry())
			} else if !slices.ContainsFunc(problems, func(p desired.Problem) bool { return p.Name == d.Name }) {
				s.Objects = append(s.Objects, desired.Object{Object: d.Object, Declared: d.Declared})
			}
		}
		why := Waits(s, c.found, &s.Entries[0])
		if (why != "") != c.waits || c.waits && !strings.Contains(why, "spec.volumes[0].volume: volume data is not there yet, and its document has a problem: m.yaml:") {
			t.Errorf("%s: %q", name, why)
		}
		if names := Names(s); strings.Contains(strings.Join(c.docs, ""), bad) && !slices.Contains(names, "data") {
			t.Errorf("%s: nobody looks at %q", name, names)
		}
	}
	if Waits(&desired.Snapshot{}, none, nil) != "" {
		t.Error("without a manifest")
	}
}
