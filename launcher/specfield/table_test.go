// SPDX-License-Identifier: Apache-2.0

package specfield

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the table into docs/reference/spec-fields.md")

// leaves are the paths of all fields of a type that hold a value, without those
// below a path that stop accepts.
func leaves(t reflect.Type, path string, stop func(string) bool) []string {
	if path != "" && stop(path) {
		return []string{path}
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return leaves(t.Elem(), path, stop)
	case reflect.Struct:
		var out []string
		for f := range t.Fields() {
			next := path
			if !f.Anonymous {
				next = strings.TrimPrefix(path+"."+jsonName(f), ".")
			}
			out = append(out, leaves(f.Type, next, stop)...)
		}
		return out
	}
	return []string{path}
}

// coversBelow says whether a row decides for all fields below it as well: in no
// way may anything of it be honoured, since a new field below could be another
// thing.
func coversBelow(f Field) bool {
	return !slices.ContainsFunc(f.Rules[:], func(r Rule) bool { return r.Decision == Honoured })
}

// Every field of the specification that this program is built with is decided on,
// and the table has no field that does not exist. This test fails when an upgrade
// of the specification adds a field.
func TestEveryFieldIsDecided(t *testing.T) {
	t.Parallel()
	fields := map[string]Field{}
	for _, f := range Fields() {
		if _, twice := fields[f.Path]; twice {
			t.Errorf("%s is in the table twice", f.Path)
		}
		fields[f.Path] = f
	}
	covered := func(path string) bool { f, ok := fields[path]; return ok && coversBelow(f) }
	seen := map[string]bool{}
	for _, path := range leaves(reflect.TypeFor[specs.Spec](), "", covered) {
		f, ok := fields[path]
		if !ok {
			t.Errorf("%s is a field of the specification and not in the table: decide what is done with it in Fields", path)
			continue
		}
		seen[path] = true
		inProcess := strings.HasPrefix(path, "process.")
		for way, r := range f.Rules {
			switch {
			case r.Decision == None && (Way(way) != Exec || inProcess):
				t.Errorf("%s is not decided on for way %d", path, way)
			case (r.Decision == Refused || r.Decision == Ignored) && r.Why == "":
				t.Errorf("%s is %s without a reason", path, r.Decision)
			}
		}
	}
	for path := range fields {
		if !seen[path] {
			t.Errorf("%s is in the table and no field of the specification", path)
		}
	}
}

// A field that the table lacks is found: the test above can fail.
func TestNewFieldIsFound(t *testing.T) {
	t.Parallel()
	type inner struct {
		Known string `json:"known"`
		Added *int   `json:"added,omitempty"`
	}
	type spec struct {
		specs.LinuxBlockIODevice
		List []inner          `json:"list,omitempty"`
		Map  map[string]inner `json:"map,omitempty"`
	}
	got := leaves(reflect.TypeFor[spec](), "", func(p string) bool { return p == "map" })
	if want := []string{"major", "minor", "list.known", "list.added", "map"}; !slices.Equal(got, want) {
		t.Errorf("%q, expected %q", got, want)
	}
}

const (
	begin = "<!-- table: go test ./launcher/specfield -update -->\n"
	end   = "<!-- end of table -->\n"
)

// markdown is the table as the documentation has it.
func markdown() string {
	var b strings.Builder
	b.WriteString("| field | manifest bundle | `oci` | `oci exec --process` |\n| --- | --- | --- | --- |\n")
	for _, f := range Fields() {
		fmt.Fprintf(&b, "| `%s` |", f.Path)
		for _, r := range f.Rules {
			b.WriteString(" " + r.Decision.String())
			if r.Why != "" {
				b.WriteString(": " + r.Why)
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// The documentation says what is done.
func TestDocumented(t *testing.T) {
	t.Parallel()
	const file = "../../docs/reference/spec-fields.md"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	table, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", file)
	}
	if table == markdown() {
		return
	}
	if !*update {
		t.Fatalf("%s does not say what Fields decides; write it with: go test ./launcher/specfield -update", file)
	}
	if err := os.WriteFile(file, []byte(before+begin+markdown()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	type change = func(*specs.Spec)
	linux := func(c func(*specs.Linux)) change {
		return func(s *specs.Spec) { s.Linux = &specs.Linux{}; c(s.Linux) }
	}
	for name, c := range map[string]struct {
		change          change
		bundle, runtime string // what the error begins with, "" if there is none
	}{
		"nothing":          {func(*specs.Spec) {}, "", ""},
		"sysctl":           {linux(func(l *specs.Linux) { l.Sysctl = map[string]string{"net.core.somaxconn": "1"} }), "linux.sysctl: ", "linux.sysctl: "},
		"a known sysctl":   {linux(func(l *specs.Linux) { l.Sysctl = map[string]string{"fs.nr_open": "1"} }), "", ""},
		"sysctls, one bad": {linux(func(l *specs.Linux) { l.Sysctl = map[string]string{"fs.nr_open": "1", "kernel.x": "1"} }), "linux.sysctl: ", "linux.sysctl: "},
		"of a client":      {linux(func(l *specs.Linux) { l.Sysctl = map[string]string{"net.ipv4.ping_group_range": "0 0"} }), "", ""},
		"intelRdt":         {linux(func(l *specs.Linux) { l.IntelRdt = &specs.LinuxIntelRdt{} }), "linux.intelRdt: ", "linux.intelRdt: "},
		"mountLabel":       {linux(func(l *specs.Linux) { l.MountLabel = "x" }), "linux.mountLabel: ", ""},
		"cgroupsPath":      {linux(func(l *specs.Linux) { l.CgroupsPath = "/x" }), "linux.cgroupsPath: ", ""},
		"personality":      {linux(func(l *specs.Linux) { l.Personality = &specs.LinuxPersonality{Domain: "LINUX32"} }), "linux.personality: ", "linux.personality: "},
		"the only one":     {linux(func(l *specs.Linux) { l.Personality = &specs.LinuxPersonality{Domain: "LINUX"} }), "", ""},
		"time offsets":     {linux(func(l *specs.Linux) { l.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {}} }), "linux.timeOffsets: ", "linux.timeOffsets: "},
		"empty maps": {linux(func(l *specs.Linux) {
			l.TimeOffsets, l.Sysctl = map[string]specs.LinuxTimeOffset{}, map[string]string{}
		}), "", ""},
		"in a list": {linux(func(l *specs.Linux) {
			l.Namespaces = []specs.LinuxNamespace{{Type: "pid"}, {Type: "network", Path: "/proc/1/ns/net"}}
		}), "linux.namespaces[1].path: ", ""},
		"in a map": {linux(func(l *specs.Linux) {
			l.Resources = &specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5": {HcaHandles: new(uint32(1))}}}
		}), "linux.resources.rdma[mlx5].hcaHandles: ", ""},
		"embedded": {linux(func(l *specs.Linux) {
			l.Resources = &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8}}}}}
		}), "linux.resources.blockIO.weightDevice[0].major: ", ""},
		"0 is none": {linux(func(l *specs.Linux) {
			l.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: new(uint64(0)), Idle: new(int64(0))}}
		}), "", ""},
		"0 is a value": {linux(func(l *specs.Linux) {
			l.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: new(uint64(0))}}
		}), "linux.resources.memory.swappiness: ", ""},
		"scheduler": {func(s *specs.Spec) { s.Process = &specs.Process{Scheduler: &specs.Scheduler{Policy: "SCHED_FIFO"}} }, "process.scheduler: ", "process.scheduler: "},
		"a nice one": {func(s *specs.Spec) {
			s.Process = &specs.Process{Scheduler: &specs.Scheduler{Policy: "SCHED_OTHER", Nice: 1}}
		}, "process.scheduler: ", "process.scheduler: "},
		"the default one":    {func(s *specs.Spec) { s.Process = &specs.Process{Scheduler: &specs.Scheduler{Policy: "SCHED_OTHER"}} }, "", ""},
		"ioPriority":         {func(s *specs.Spec) { s.Process = &specs.Process{IOPriority: &specs.LinuxIOPriority{Priority: 4}} }, "process.ioPriority: ", "process.ioPriority: "},
		"execCPUAffinity":    {func(s *specs.Spec) { s.Process = &specs.Process{ExecCPUAffinity: &specs.CPUAffinity{Initial: "0"}} }, "process.execCPUAffinity: ", "process.execCPUAffinity: "},
		"oomScoreAdj":        {func(s *specs.Spec) { s.Process = &specs.Process{OOMScoreAdj: new(-999)} }, "process.oomScoreAdj: ", ""},
		"a mapping":          {func(s *specs.Spec) { s.Mounts = []specs.Mount{{}, {UIDMappings: []specs.LinuxIDMapping{{Size: 1}}}} }, "mounts[1].uidMappings: ", "mounts[1].uidMappings: "},
		"another system":     {func(s *specs.Spec) { s.Windows = &specs.Windows{} }, "windows: ", "windows: "},
		"a machine":          {func(s *specs.Spec) { s.VM = &specs.VM{} }, "vm: ", "vm: "},
		"a seccomp notifier": {linux(func(l *specs.Linux) { l.Seccomp = &specs.LinuxSeccomp{ListenerPath: "/s"} }), "linux.seccomp.listenerPath: ", "linux.seccomp.listenerPath: "},
	} {
		for way, want := range map[Way]string{Bundle: c.bundle, Runtime: c.runtime} {
			var s specs.Spec
			c.change(&s)
			err := Check(&s, way)
			if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want+"not supported: ")) {
				t.Errorf("%s, way %d: %v, expected %q", name, way, err, want)
			}
		}
	}
	if err := CheckProcess(&specs.Process{IOPriority: &specs.LinuxIOPriority{Priority: 1}}); err == nil || !strings.HasPrefix(err.Error(), "process.ioPriority: ") {
		t.Error(err)
	}
	if err := CheckProcess(&specs.Process{OOMScoreAdj: new(5), Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE"}}}); err != nil {
		t.Error(err)
	}
}
