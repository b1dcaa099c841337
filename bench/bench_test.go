// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []float64
		want   summary
	}{
		{[]float64{3}, summary{1, 3, 3, 3}},
		{[]float64{4, 1}, summary{2, 1.75, 2.5, 3.25}},
		{[]float64{5, 1, 4, 2, 3}, summary{5, 2, 3, 4}},
		{[]float64{1, 1, 1, 100}, summary{4, 1, 1, 25.75}},
	} {
		if got := summarize(c.values); got != c.want {
			t.Errorf("%v: %+v, expected %+v", c.values, got, c.want)
		}
	}
	if s := summarize(nil); s.N != 0 || !math.IsNaN(s.Median) {
		t.Errorf("no value: %+v", s)
	}
}

func TestResult(t *testing.T) {
	t.Parallel()
	series := func(ours, theirs float64) map[string][]float64 {
		return map[string][]float64{sandboxctlName: {ours, ours, ours}, runscName: {theirs}, few: {theirs}}
	}
	for what, c := range map[string]struct {
		row   row
		value float64
		met   string
	}{
		"ratio, met":        {row{Goal: 0.6, Base: runscName, Series: series(50, 100)}, 0.5, "met"},
		"ratio, missed":     {row{Goal: 0.6, Base: runscName, Series: series(70, 100)}, 0.7, "missed"},
		"difference":        {row{Goal: 10, Base: few, Differ: true, Series: series(70, 65)}, 5, "met"},
		"alone":             {row{Goal: 2, Series: map[string][]float64{sandboxctlName: {3}}}, 3, "missed"},
		"no goal":           {row{Series: map[string][]float64{sandboxctlName: {3}}}, 3, ""},
		"base not measured": {row{Goal: 0.6, Base: runscName, Series: map[string][]float64{sandboxctlName: {0.5}}}, 0, ""},
	} {
		got := c.row.result()
		met := ""
		if got.Met != nil {
			met = map[bool]string{true: "met", false: "missed"}[*got.Met]
		}
		if math.Abs(got.Value-c.value) > 1e-9 || met != c.met {
			t.Errorf("%s: %v %q, expected %v %q", what, got.Value, met, c.value, c.met)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	rep := newReport(machine{Processors: 2, Processor: "x", At: time.Unix(0, 0)}, []*row{
		{ID: "start", What: "a <start>", Unit: "ms", Goal: 0.6, Base: runscName, Series: map[string][]float64{sandboxctlName: {40, 50, 60}, runscName: {100}, "runc": {20}}},
		{ID: "adoption", What: "adopted", Unit: "ms", Goal: 300, Series: map[string][]float64{sandboxctlName: {250}}},
		{ID: "one", What: "one side", Unit: "ms", Goal: 0.5, Base: podmanName, Series: map[string][]float64{sandboxctlName: {7}}, Notes: map[string]string{podmanName: "it refuses"}},
		{ID: "none", What: "no side", Unit: "ms", Goal: 0.5, Base: podmanName, Series: map[string][]float64{podmanName: {7}}, Notes: map[string]string{sandboxctlName: "it is not there"}},
		{ID: "a&b", What: "slow", Unit: "ms", Goal: 0.1, Base: runscName, Series: map[string][]float64{sandboxctlName: {300}, runscName: {100}}},
	})
	for _, want := range []string{
		"| a <start> | 50.0 ms (45.0 to 55.0) | runsc 100.0 ms<br>runc 20.0 ms | 0.50 | ≤ 0.6: met |",
		"| adopted | 250.0 ms |  |  | ≤ 300 ms: met |",
		"| 3.00 | ≤ 0.1: **missed** |",
		"| one side | 7.0 ms | podman + runsc is not measured: it refuses |  |  |",
		"| no side |  | podman + runsc 7.0 ms<br>sandboxctl is not measured: it is not there |  |  |",
	} {
		if text := rep.markdown(); !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	chart := rep.svg()
	for d := xml.NewDecoder(strings.NewReader(chart)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, chart)
		}
	}
	if n := strings.Count(chart, `fill="#3b6ea5"`); n != 2 {
		t.Errorf("%d bars, expected those of the two ratios\n%s", n, chart)
	}
}

func TestParseUsage(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"1234567\n": 1234567, "usage_usec 12\nuser_usec 5\n": 12 * time.Microsecond, "nr_periods 0\nusage_usec 7\n": 7 * time.Microsecond,
	} {
		if got, err := parseUsage(text); err != nil || got != want {
			t.Errorf("%q: %v %v, expected %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x\n", "user_usec 5\n"} {
		if got, err := parseUsage(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestParts(t *testing.T) {
	t.Parallel()
	for only, want := range map[string]int{"": 8, "crowd": 1, "networks": 1, "starts,fleets": 2, "images-run": 1, "start": -1, "starts,": -1} {
		b := &bench{cfg: config{only: only}}
		parts, err := b.parts()
		if n := len(parts); (err != nil) != (want < 0) || err == nil && n != want {
			t.Errorf("%q: %d parts, %v", only, n, err)
		}
	}
}

// programs is where the programs to measure are.
func programs(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("SANDBOXCTL_BIN")
	if bin == "" || os.Geteuid() != 0 {
		if os.Getenv("SANDBOXCTL_E2E") == "require" {
			t.Fatal("root and SANDBOXCTL_BIN are required")
		}
		t.Skip("needs root, and built programs in SANDBOXCTL_BIN")
	}
	return bin
}

// One small round of everything measures something everywhere and leaves nothing.
func TestBench(t *testing.T) {
	bin := programs(t)
	out := t.TempDir()
	cmd := exec.Command("go", "run", ".", "-bin", bin, "-out", out, "-only", "starts,fleets,changes,adoption,crowd,pulls", "-peers=false", "-rounds", "1", "-bursts", "1", "-idle", "1s", "-fleet", "3", "-many", "20", "-adopted", "2", "-crowd", "2", "-image", "4")
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	table, err := os.ReadFile(filepath.Join(out, "table.md"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(table), "NaN") || strings.Count(string(table), "\n| ") < 26 {
		t.Errorf("not everything was measured:\n%s", table)
	}
	if strings.Contains(string(table), ": met |") && strings.Contains(string(table), "≤ 0.6: ") {
		t.Errorf("a ratio is judged without what it is one of:\n%s", table)
	}
	for _, f := range []string{"results.json", "chart.svg"} {
		if st, err := os.Stat(filepath.Join(out, f)); err != nil || st.Size() < 200 {
			t.Errorf("%s: %v %v", f, st, err)
		}
	}
	noGroup(t)
}
