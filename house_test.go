// SPDX-License-Identifier: Apache-2.0

// Package house_test holds the rules of the house that no compiler does.
package house_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// deps are the packages linked into the packages named.
func deps(t *testing.T, pkgs ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-deps"}, pkgs...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// The programs of a release, and what none of their code may lead to. Each is
// started for a purpose of its own, often, and is no larger than that needs.
var programs = []struct {
	pkg string
	// allowed are the packages that it may link beside the standard library;
	// empty allows all but those that are denied.
	allowed, denied string
	// must is a package without which the program would not be itself: a test that
	// looks at the wrong list does not see it.
	must string
}{
	{
		pkg: "./cmd/sandboxctl",
		denied: `^gvisor\.dev/|^sandboxctl\.dev/gofer/(server|server/filters|hostfiles|precompiled.*)$|^sandboxctl\.dev/cmd/sandboxctl-|/testscript$|` +
			// A client of registries, and what parses images of strangers: sandboxctl-image.
			`^sandboxctl\.dev/launcher/image/(puller|source|layers|packer|compression|erofs)|^net/http|^crypto/tls$|^github\.com/(google/go-containerregistry|klauspost/compress|docker/)`,
		must: "github.com/spf13/cobra",
	},
	{
		// What a hostile sandbox speaks to: the file server and nothing of the product.
		pkg: "./cmd/sandboxctl-gofer",
		allowed: `^sandboxctl\.dev/(cmd/sandboxctl-gofer|gofer|gofer/(server|server/filters|hostfiles|sandboxlog|precompiled)|launcher/wire|actual/crashpoint)$|^github\.com/moby/sys/mountinfo$|` +
			`^golang\.org/x/(sys/unix|exp/constraints|time/rate|sync/errgroup)$|^gvisor\.dev/gvisor/(pkg|runsc/fsgofer)/`,
		denied: `^gvisor\.dev/gvisor/(pkg/(sentry|tcpip)|runsc/(boot|specutils|cgroup|cmd|container|sandbox|config))(/|$)`,
		must:   "gvisor.dev/gvisor/pkg/lisafs",
	},
	{
		// What parses images of strangers: it starts no sandbox and knows no plan.
		pkg:    "./cmd/sandboxctl-image",
		denied: `^gvisor\.dev/|^sandboxctl\.dev/(reconcile|gofer|launcher$|launcher/(rootimage|companion|oci|cgroup|guest|netns|hostfs|setup|sentry)|cmd/sandboxctl/(world|daemon))`,
		must:   "github.com/google/go-containerregistry/pkg/authn",
	},
	{
		pkg:    "./cmd/sandboxctl-sentry",
		denied: `^sandboxctl\.dev/(desired|reconcile|gofer$|gofer/(server|hostfiles|sandboxlog)|cmd/sandboxctl$|launcher$|launcher/(oci|cgroup|guest|netns)$)|^github\.com/(spf13|fsnotify|vishvananda/netns)|^go\.yaml\.in/|^sigs\.k8s\.io/`,
		must:   "gvisor.dev/gvisor/pkg/sentry/kernel",
	},
}

// TestPrograms holds what is linked into each of the four programs.
func TestPrograms(t *testing.T) {
	t.Parallel()
	for _, p := range programs {
		list := deps(t, p.pkg)
		if !slices.Contains(list, p.must) {
			t.Errorf("%s does not link %s: this test does not see what is linked", p.pkg, p.must)
		}
		for _, q := range programs {
			allowed, denied := regexp.MustCompile(q.allowed), regexp.MustCompile(q.denied)
			wrong := slices.DeleteFunc(slices.Clone(list), func(d string) bool {
				return (isStandard(d) || allowed.MatchString(d)) && !denied.MatchString(d)
			})
			switch {
			case p.pkg == q.pkg && len(wrong) > 0:
				t.Errorf("%s links %v", p.pkg, wrong)
			case p.pkg != q.pkg && len(wrong) == 0:
				// The rules can fail: each program breaks those of the others.
				t.Errorf("%s keeps the rules of %s", p.pkg, q.pkg)
			}
		}
	}
}

// isStandard says whether a package is of Go's standard library.
func isStandard(pkg string) bool {
	first, _, _ := strings.Cut(pkg, "/")
	return !strings.Contains(first, ".") || strings.HasPrefix(pkg, "vendor/")
}

// libraries are those that the set-up of a sandbox leads to.
const libraries = `|^golang\.org/x/|^github\.com/(moby/sys|opencontainers/runtime-spec|vishvananda|fsnotify/fsnotify|go-git/|jbenet/go-context/)|^go\.yaml\.in/yaml/|^sigs\.k8s\.io/yaml|^gopkg\.in/warnings`

// nftables is what the firewall of networks leads to.
const nftables = `|^github\.com/(google/nftables|mdlayher/)`

// cniLibrary is what knows the formats and versions of CNI. It runs nothing: launcher/cni does.
const cniLibrary = `|^github\.com/containernetworking/cni/`

func TestDirections(t *testing.T) {
	t.Parallel()
	for pkg, allowed := range map[string]string{
		// The standard library and nothing else of ours: they are in everything.
		"./actual/dirfd":        `^sandboxctl\.dev/actual/dirfd$|^golang\.org/x/sys/`,
		"./actual/crashpoint":   `^sandboxctl\.dev/actual/crashpoint$`,
		"./actual/...":          `^sandboxctl\.dev/actual|^golang\.org/x/sys/`,
		"./desired/imageref":    `^sandboxctl\.dev/desired/imageref$`,
		"./actual/ownjson":      `^sandboxctl\.dev/actual/ownjson$`,
		"./desired/...":         `^sandboxctl\.dev/(desired|actual/(dirfd|ownjson)$)|^golang\.org/x/sys/|^github\.com/moby/sys/(signal|capability)$|^go\.yaml\.in/yaml/|^sigs\.k8s\.io/yaml|^github\.com/(fsnotify/fsnotify|go-git/|jbenet/go-context/)|^gopkg\.in/warnings|^golang\.org/x/net/context`,
		"./reconcile/...":       `^sandboxctl\.dev/(reconcile|desired|actual)|^github\.com/moby/sys/(signal|capability)$|^golang\.org/x/sys/|^go\.yaml\.in/yaml/|^sigs\.k8s\.io/yaml|^github\.com/(fsnotify/fsnotify|go-git/|jbenet/go-context/)|^gopkg\.in/warnings|^golang\.org/x/net/context`,
		"./gofer/precompiled":   `^sandboxctl\.dev/gofer/precompiled$|^golang\.org/x/|^gvisor\.dev/gvisor/pkg/`,
		"./gofer":               `^sandboxctl\.dev/gofer$|^golang\.org/x/sys/|^github\.com/moby/sys/mountinfo$`,
		"./gofer/...":           `^sandboxctl\.dev/(gofer|actual/crashpoint$)|^golang\.org/x/|^gvisor\.dev/gvisor/|^github\.com/moby/sys/mountinfo$`,
		"./launcher/setup":      `^sandboxctl\.dev/(launcher/(setup|cgroup|guest|idmap|onepage|pidone|seccomp|specfield|wire)$|desired|actual)|^golang\.org/x/|^github\.com/(opencontainers/runtime-spec|moby/sys/)|^go\.yaml\.in/yaml/|^sigs\.k8s\.io/yaml`,
		"./launcher/wire":       `^sandboxctl\.dev/launcher/wire`,
		"./launcher/cgroup":     `^sandboxctl\.dev/(launcher/cgroup|actual/crashpoint$)|^golang\.org/x/sys/|^github\.com/(moby/sys/mountinfo$|opencontainers/runtime-spec/)`,
		"./launcher/hostfs":     `^sandboxctl\.dev/(launcher/(hostfs|setup|proc|cgroup|guest|idmap|netns|onepage|pidone|seccomp|specfield|wire)$|desired|actual|gofer$)` + libraries,
		"./launcher/resolve":    `^sandboxctl\.dev/(launcher/(resolve|hostfs|setup|proc|cgroup|guest|idmap|netns|onepage|pidone|seccomp|specfield|wire)$|desired|actual|gofer$)` + libraries,
		"./launcher/built":      `^sandboxctl\.dev/(launcher/(built|resolve|hostfs|setup|proc|cgroup|guest|idmap|netns|onepage|pidone|seccomp|specfield|wire)$|desired|actual|gofer$)` + libraries,
		"./launcher/appstart":   `^sandboxctl\.dev/(launcher/(appstart|setup|sentry|proc|cgroup|guest|idmap|netns|onepage|pidone|seccomp|specfield|wire)$|desired|actual|gofer/sandboxlog$)` + libraries,
		"./launcher/pair":       `^sandboxctl\.dev/(launcher/(pair|pause|appstart|hostfs|logs|pty|companion|setup|sentry|proc|cgroup|guest|idmap|netns|onepage|pidone|seccomp|specfield|wire)$|desired|actual|gofer)|^gvisor\.dev/gvisor/` + libraries,
		"./launcher/checkpoint": `^sandboxctl\.dev/(launcher/(checkpoint|built|resolve|hostfs|setup|companion|sentry|proc|cgroup|guest|idmap|netns|onepage|pidone|seccomp|specfield|wire)$|desired|actual|gofer)|^gvisor\.dev/gvisor/` + libraries,
		"./launcher/pty":        `^sandboxctl\.dev/launcher/pty$|^golang\.org/x/sys/`,
		"./launcher/guest":      `^sandboxctl\.dev/launcher/guest|^golang\.org/x/sys/|^github\.com/opencontainers/runtime-spec/`,
		"./launcher/proc":       `^sandboxctl\.dev/(launcher/(proc|netns|wire)$|actual)|^golang\.org/x/sys/|^github\.com/vishvananda/`,
		"./launcher/procfs":     `^sandboxctl\.dev/launcher/procfs$|^golang\.org/x/sys/`,
		"./launcher/companion":  `^sandboxctl\.dev/(launcher/(companion|proc|netns|wire)$|gofer|actual)|^golang\.org/x/|^gvisor\.dev/gvisor/|^github\.com/(vishvananda|moby/sys/mountinfo)`,
		"./launcher/hooks":      `^sandboxctl\.dev/(launcher/(hooks|setup|proc|cgroup|guest|idmap|netns|onepage|pidone|seccomp|specfield|wire)$|desired|actual)` + libraries,
		"./launcher/salvage":    `^sandboxctl\.dev/(launcher/(salvage|companion|cgroup|sentry|proc|procfs|netns|wire)$|gofer|actual)|^golang\.org/x/|^gvisor\.dev/gvisor/|^github\.com/(vishvananda|moby/sys/mountinfo|opencontainers/runtime-spec)`,
		"./launcher/sentry":     `^sandboxctl\.dev/(launcher/(sentry|cgroup|proc|netns|wire)$|gofer/sandboxlog$|actual)|^golang\.org/x/sys/|^github\.com/(vishvananda|moby/sys/mountinfo|opencontainers/runtime-spec)`,
		"./launcher/logs":       `^sandboxctl\.dev/(launcher/logs$|gofer/sandboxlog$|actual)|^golang\.org/x/sys/`,
		// Nothing that reads images of other people knows of sandboxes.
		"./launcher/image":        `^sandboxctl\.dev/(launcher/image|desired/imageref)$|^sandboxctl\.dev/actual|^golang\.org/x/sys/|^github\.com/erofs/go-erofs`,
		"./launcher/image/puller": `^sandboxctl\.dev/(launcher/image|launcher/tarend$|desired|actual)|^github\.com/(erofs/go-erofs$|google/go-containerregistry/pkg/|klauspost/compress|docker/|opencontainers/(go-digest|image-spec)|sirupsen/logrus$)` + libraries,
		"./launcher/image/layers": `^sandboxctl\.dev/launcher/(tarend|image/(layers|erofs|compression))$|^golang\.org/x/sys/|^github\.com/klauspost/compress`,
		"./launcher/image/erofs":  `^sandboxctl\.dev/launcher/image/erofs$|^golang\.org/x/sys/`,
		"./launcher/image/packer": `^sandboxctl\.dev/(launcher/image/packer|actual/dirfd)$|^golang\.org/x/sys/`,
		"./launcher/image/source": `^sandboxctl\.dev/(launcher/image/(source|compression)|desired/(imageref|trustedfile)|actual/dirfd)$|^golang\.org/x/|^github\.com/(google/go-containerregistry/pkg/|klauspost/compress|docker/|opencontainers/(go-digest|image-spec)|sirupsen/logrus$)`,
		"./launcher/netns":        `^sandboxctl\.dev/(launcher/(netns|wire)|actual/(crashpoint|operation)$)|^golang\.org/x/sys/|^github\.com/vishvananda/`,
		"./launcher/passthrough":  `^sandboxctl\.dev/(launcher/(passthrough|netns|setup|sentry|proc|cgroup|guest|idmap|onepage|pidone|seccomp|specfield|wire)$|gofer/sandboxlog$|desired|actual)` + libraries,
		"./launcher/cni":          `^sandboxctl\.dev/(launcher/(cni|dns|names|firewall|firewall/(objects|sent)|netns|proc|wire)$|desired/|desired$|actual)` + libraries + nftables + cniLibrary,
		"./launcher/addresses":    `^sandboxctl\.dev/launcher/addresses$`,
		"./launcher/links":        `^sandboxctl\.dev/(launcher/(links|netns|wire)|actual/(crashpoint|operation)$)|^golang\.org/x/sys/|^github\.com/vishvananda/`,
		"./launcher/flows":        `^sandboxctl\.dev/launcher/flows$|^golang\.org/x/(sys|net|sync)/|^github\.com/mdlayher/`,
		"./launcher/packetlog":    `^sandboxctl\.dev/(launcher/(packetlog|firewall|firewall/(objects|sent))|desired/networks/public)$|^golang\.org/x/(sys|net|sync|time)/|^github\.com/(google/nftables|mdlayher/|vishvananda/)`,
		"./launcher/loopback6":    `^sandboxctl\.dev/launcher/loopback6$|^golang\.org/x/sys/`,
		// Rules know no sandbox but what they are given of it.
		"./launcher/firewall": `^sandboxctl\.dev/(launcher/firewall|launcher/firewall/(objects|sent)|desired/networks/public)$|^golang\.org/x/(sys|net|sync)/|^github\.com/(google/nftables|mdlayher/|vishvananda/)`,
		"./launcher/inforce":  `^sandboxctl\.dev/(launcher/inforce$|desired/|actual)|^golang\.org/x/(sys|net|sync|time)/|^github\.com/moby/sys/signal$|^go\.yaml\.in/yaml/|^sigs\.k8s\.io/yaml`,
		"./launcher/bridge":   `^sandboxctl\.dev/(launcher/(bridge|addresses|inforce|links|firewall|firewall/(objects|others|sent|stricter)|flows|hostports|loopback6|packetlog|dns|names|netns|wire)$|desired/|actual|gofer$)|^golang\.org/x/(sys|net|sync|time)/|^github\.com/(vishvananda/|moby/sys/(mountinfo|signal)$)|^go\.yaml\.in/yaml/|^sigs\.k8s\.io/yaml` + nftables,
		"./launcher":          `^sandboxctl\.dev/(launcher|desired|actual|gofer)` + libraries + nftables + cniLibrary,
		// Names are values; who answers a guest has sockets, and the word for what is public.
		"./launcher/names": `^sandboxctl\.dev/launcher/names$`,
		"./launcher/dns":   `^sandboxctl\.dev/(launcher/(dns|names|firewall|firewall/(objects|sent))|desired/networks/public)$|^golang\.org/x/(sys|net|sync|time)/|^github\.com/(google/nftables|mdlayher/|vishvananda/)`,
		// It looks, and can't start or signal anybody by itself but through these.
		"./launcher/invariants": `^sandboxctl\.dev/(launcher|desired|actual|gofer)|^github\.com/erofs/go-erofs` + libraries,
		"./cmd/sandboxctl":      `.`,
		// Neither knows the verbs of the daemon's sandboxes, and the first no verbs at all.
		"./cmd/sandboxctl/entry":  `^sandboxctl\.dev/(cmd/sandboxctl/(entry|exit|show)$|launcher/wire$|actual)|^(github|golang|go|sigs|gopkg)[a-z0-9.]*/`,
		"./cmd/sandboxctl/attach": `^sandboxctl\.dev/(cmd/sandboxctl/(attach|exit|show)$|launcher|desired|actual|gofer)|^(github|golang|go|sigs|gopkg)[a-z0-9.]*/`,
		"./cmd/sandboxctl/ocicmd": `^sandboxctl\.dev/(cmd/sandboxctl/(ocicmd|attach|exit|show|programs)$|launcher|desired|actual|gofer)|^(github|golang|go|sigs|gopkg)[a-z0-9.]*/`,
		// Those who print history and those who write manifests start nothing, and know
		// no other verb but the one that waits.
		"./cmd/sandboxctl/world":     `^sandboxctl\.dev/(cmd/sandboxctl/(entry|world|ocicmd|attach|exit|show|programs)$|launcher|reconcile|desired|actual|gofer)|^(github|golang|go|sigs|gopkg)[a-z0-9.]*/`,
		"./cmd/sandboxctl/manifests": `^sandboxctl\.dev/(cmd/sandboxctl/(entry|manifests|await|oneoff|world|ocicmd|attach|exit|show|programs)$|launcher|reconcile|desired|actual|gofer)|^(github|golang|go|sigs|gopkg)[a-z0-9.]*/`,
		"./cmd/sandboxctl/history":   `^sandboxctl\.dev/(cmd/sandboxctl/(entry|history|world|ocicmd|attach|exit|show|programs)$|launcher|reconcile|desired|actual|gofer)|^(github|golang|go|sigs|gopkg)[a-z0-9.]*/`,
		"./client/...":               `^sandboxctl\.dev/client|^golang\.org/x/sys/unix$`,
		"./cmd/sandboxctl/clients":   `^sandboxctl\.dev/(client/protocol$|cmd/sandboxctl/(entry|clients|await|manifests|oneoff|world|ocicmd|attach|exit|show|programs)$|launcher|reconcile|desired|actual|gofer)|^(github|golang|go|sigs|gopkg)[a-z0-9.]*/`,
		"./cmd/sandboxctl/daemon":    `^sandboxctl\.dev/(client/protocol$|cmd/sandboxctl/(entry|daemon|clients|await|manifests|oneoff|world|ocicmd|attach|exit|show|programs)$|launcher|reconcile|desired|actual|gofer)|^(github|golang|go|sigs|gopkg)[a-z0-9.]*/`,
		"./gofer/sandboxlog":         `^sandboxctl\.dev/gofer/sandboxlog|^golang\.org/x/sys/`,
	} {
		re := regexp.MustCompile(allowed)
		for _, d := range deps(t, pkg) {
			if isStandard(d) || strings.Contains(d, "/internal/") {
				continue
			}
			if !re.MatchString(d) {
				t.Errorf("%s depends on %s", pkg, d)
			}
		}
	}
}

// What is built for a sandbox is decided without a look at the host, so that it can
// be written down and read again: whoever decides has nothing to look with.
func TestSetupTouchesNothing(t *testing.T) {
	t.Parallel()
	host := regexp.MustCompile(`^"(os|os/.*|syscall|net|net/.*|io/fs|sandboxctl\.dev/(actual/dirfd|actual/atomicfile|launcher/(hostfs|resolve|built|pair)))"$`)
	looked := 0
	for _, name := range files(t) {
		if !strings.HasPrefix(name, "launcher/setup/") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			looked++
			if host.MatchString(i.Path.Value) {
				t.Errorf("%s imports %s: open host paths in hostfs or resolve", name, i.Path.Value)
			}
		}
	}
	if looked == 0 || !host.MatchString(`"os/exec"`) {
		t.Error("this test sees nothing")
	}
}

// files are the Go files of the project.
func files(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(".", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (p == "bin" || p == ".git") {
			return fs.SkipDir
		}
		if strings.HasSuffix(p, ".go") {
			out = append(out, p)
		}
		return nil
	})
	if err != nil || len(out) < 50 {
		t.Fatalf("%d files, %v", len(out), err)
	}
	return out
}

// planner are the files that must not know what time it is.
var planner = regexp.MustCompile(`^(reconcile/([a-z]+|(backoff|endings|lifetime)/[a-z]+)|actual/transition)\.go$`)

// readers are the files that may look into a message: gVisor answers with text
// alone, and this is where it becomes an error with a type.
var readers = map[string]bool{"launcher/sentry/control.go": true}

// readsMessage says whether a call looks for something in the text of an error.
func readsMessage(call *ast.CallExpr) bool {
	fn, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := fn.X.(*ast.Ident)
	if !ok || x.Name != "strings" || !regexp.MustCompile(`^(Contains|HasPrefix|HasSuffix|Cut|Index|EqualFold|Replace)`).MatchString(fn.Sel.Name) {
		return false
	}
	found := false
	for _, a := range call.Args {
		ast.Inspect(a, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				s, ok := n.Fun.(*ast.SelectorExpr)
				found = found || ok && s.Sel.Name == "Error" && len(n.Args) == 0
			case *ast.SelectorExpr:
				found = found || n.Sel.Name == "Message"
			}
			return true
		})
	}
	return found
}

// breaches of one file: calls that must not be where they are.
func breaches(path, src string) ([]string, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var out []string
	isTest := strings.HasSuffix(path, "_test.go") || strings.HasSuffix(filepath.Dir(path), "test") || strings.HasPrefix(path, "bench/")
	ast.Inspect(f, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && !isTest && readsMessage(call) && !readers[path] {
			out = append(out, fset.Position(call.Pos()).String()+": the text of an error decides; give it a type or a field")
		}
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		name := x.Name + "." + sel.Sel.Name
		bad := false
		switch name {
		case "unix.Kill", "syscall.Kill", "unix.Tgkill":
			bad = path != "launcher/proc/group.go"
		case "unix.PidfdSendSignal":
			bad = path != "actual/process/process.go" && path != "launcher/proc/gated.go"
		case "unix.Openat2":
			bad = !isTest && path != "actual/dirfd/dirfd.go"
		case "os.WriteFile", "os.Create", "os.Rename", "os.RemoveAll":
			bad = !isTest
		case "time.Now", "time.Since", "time.Until", "time.After":
			bad = planner.MatchString(path)
		case "os.IsNotExist", "os.IsExist":
			bad = true
		}
		if bad {
			out = append(out, fset.Position(sel.Pos()).String()+": "+name)
		}
		return true
	})
	return out, nil
}

func TestSafetyRules(t *testing.T) {
	t.Parallel()
	for _, f := range files(t) {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		got, err := breaches(f, string(src))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range got {
			t.Error(b)
		}
		if !strings.HasPrefix(string(src), "// SPDX-License-Identifier: Apache-2.0\n") {
			t.Errorf("%s: no SPDX line", f)
		}
		if n := strings.Count(string(src), "\n"); n > 700 {
			t.Errorf("%s has %d lines: is it one thing?", f, n)
		}
	}
	// Each rule can fail.
	for path, code := range map[string]string{
		"launcher/x.go": "unix.Kill(1, 9)", "reconcile/plan.go": "time.Now()", "reconcile/any.go": "time.Now()", "reconcile/lifetime/x.go": "time.Now()", "actual/transition.go": "time.Now()", "actual/x.go": "os.WriteFile(a, b, 0)",
		"gofer/x.go": "unix.PidfdSendSignal(1, 9, nil, 0)", "actual/process.go": "unix.PidfdSendSignal(1, 9, nil, 0)", "desired/x.go": "os.IsNotExist(err)", "launcher/y.go": "unix.Openat2(1, p, how)",
		"desired/y.go": `strings.HasPrefix(e.Message, "is missing")`, "reconcile/y.go": `strings.Contains(err.Error(), "x")`,
	} {
		if got, err := breaches(path, "package x\nfunc f() { "+code+" }"); err != nil || len(got) != 1 {
			t.Errorf("%s in %s is not seen: %v %v", code, path, got, err)
		}
	}
}

func TestPackages(t *testing.T) {
	t.Parallel()
	dirs := map[string]bool{}
	for _, f := range files(t) {
		dirs[filepath.Dir(f)] = true
	}
	for d := range dirs {
		switch filepath.Base(d) {
		case "util", "utils", "common", "types", "helpers", "misc":
			t.Errorf("%s says nothing of what is in it", d)
		}
		if d == "." {
			continue
		}
		documented := false
		matches, err := filepath.Glob(d + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range matches {
			f, err := parser.ParseFile(token.NewFileSet(), m, nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || f.Doc != nil && len(f.Doc.Text()) > 80
		}
		if !documented {
			t.Errorf("%s: no package comment says why it exists", d)
		}
	}
}

// Each room can be read in one go. The launcher is the order of records, gates and
// processes, and what else it needs is in rooms below it; actual and desired are larger,
// and ADR 18 says why.
func TestRooms(t *testing.T) {
	t.Parallel()
	lines := map[string]int{}
	for _, name := range files(t) {
		if !bounded.MatchString(name) || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "test/") || strings.Contains(name, "/testdata/") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		n := bytes.Count(src, []byte("\n"))
		lines[filepath.Dir(name)] += n
		if n > 500 {
			t.Errorf("%s has %d lines, expected at most 500", name, n)
		}
		for _, f := range longFunctions(t, name, src, 70) {
			t.Errorf("%s, expected at most 70 lines", f)
		}
	}
	if len(lines) < 20 || len(longFunctions(t, "x.go", []byte("package x\nfunc f() {\n\n}\n"), 2)) != 1 {
		t.Error("this test sees nothing")
	}
	for dir, n := range lines {
		most := 2500
		switch dir {
		case "launcher":
			most = 2000
		case "launcher/firewall":
			most = 2800 // one table: what is reached, published, logged, and how many connections
		case "actual":
			most = 4150 // the registry of reasons grows with each feature
		case "launcher/bridge":
			most = 2730 // what networks have in force, and what each sandbox lacks of them
		case "desired":
			most = 3500 // the types, defaults and checks of all kinds of documents
		}
		if n > most {
			t.Errorf("%s has %d lines, expected at most %d: is it one subject?", dir, n, most)
		}
	}
}

// bounded are the files of the rooms whose size is held.
var bounded = regexp.MustCompile(`^(client|launcher|actual|desired|reconcile|cmd|gofer)/`)

// longFunctions are those of a file that have more lines.
func longFunctions(t *testing.T, name string, src []byte, most int) (out []string) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; n > most {
				out = append(out, fmt.Sprintf("%s: %s has %d lines", fset.Position(fn.Pos()), fn.Name.Name, n))
			}
		}
	}
	return out
}

// notOurs are words that have no place in the project.
var notOurs = regexp.MustCompile(`/work/` + `main|proxy\.golang` + `\.org|/root/` + `go/`)

func TestWords(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("git", "ls-files").Output()
	if err != nil {
		t.Skipf("not a git checkout: %v", err)
	}
	for f := range strings.FieldsSeq(string(out)) {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // removed and not yet committed
		}
		if m := notOurs.Find(b); m != nil {
			t.Errorf("%s: %q", f, m)
		}
	}
}

// maySkip are the files with tests that even a host that has everything does not run.
// All others end by hosttest.Lacks, which fails where every test is to run.
var maySkip = map[string]string{
	"house_test.go":                        "the name of the call is here",
	"actual/hosttest/hosttest.go":          "where the rule is",
	".ci/validation/validation_test.go":    "run by .ci/validate, with flags of its own",
	"bench/bench_test.go":                  "needs built programs",
	"cmd/sandboxctl/vm/main_test.go":       "run by make vm",
	"cmd/sandboxctl/vm/trim_test.go":       "SCRIPTS names other tests",
	"launcher/cgroup/delegate_test.go":     "cgroup v2 alone: run by make vm",
	"launcher/image/layers/podman_test.go": "runs where SANDBOXCTL_E2E is set",
	"launcher/oci/bundle_test.go":          "the path of the temporary directory is too long",
	"launcher/pidone/pidone_test.go":       "another processor",
	// What a filesystem or a kernel can't do.
	"actual/process/pidreuse_test.go":        "no pid is given again",
	"actual/untrusted/untrusted_test.go":     "no immutable files",
	"cmd/sandboxctl/chaos/exhausted_test.go": "no controller of processes",
	"cmd/sandboxctl/chaos/fulldisk_test.go":  "no loop devices",
	"cmd/sandboxctl/chaos/quota_test.go":     "no btrfs",
	"desired/manifestdir/refused_test.go":    "no leases",
	"launcher/logs/logs_test.go":             "no sparse files, no such names",
}

// A test that is skipped is not run, and nobody is told.
func TestSkips(t *testing.T) {
	t.Parallel()
	skips := regexp.MustCompile(`\b[tb]\.Skip(f|Now)?\(`)
	files, err := exec.Command("git", "ls-files", "*.go").Output()
	if err != nil {
		t.Skipf("not a git checkout: %v", err)
	}
	for f := range strings.FieldsSeq(string(files)) {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // removed and not yet committed
		}
		if found, may := skips.Match(b), maySkip[f] != ""; found && !may {
			t.Errorf("%s: use hosttest.Lacks, which fails where SANDBOXCTL_E2E=require", f)
		} else if may && !found {
			t.Errorf("%s skips no test any more: take it off the list", f)
		}
	}
}

// Everything there is of gVisor is of one version.
func TestOneGVisor(t *testing.T) {
	t.Parallel()
	version := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`gvisor\.dev/gvisor (v\S+)`).FindString(string(b))
	}
	if a, b := version("go.mod"), version(".ci/runsc/go.mod"); a == "" || a != b {
		t.Errorf("sandboxctl has %q, the runsc it is compared with is %q", a, b)
	}
}

// The documentation names every example.
func TestDocs(t *testing.T) {
	t.Parallel()
	manifest, err := os.ReadFile("docs/reference/manifest.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Glob("examples/manifests/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatal(err)
	}
	for _, e := range examples {
		if !strings.Contains(string(manifest), filepath.Base(e)) {
			t.Errorf("docs/reference/manifest.md does not name %s", e)
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)#: ]*)(#[^) ]+)?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	noSlug  = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// pages are the documentation.
func pages(t *testing.T) []string {
	t.Helper()
	out := []string{"README.md", "ARCHITECTURE.md", "CHANGELOG.md"}
	err := filepath.WalkDir("docs", func(p string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(p, ".md") {
			out = append(out, p)
		}
		return err
	})
	if err != nil || len(out) < 20 {
		t.Fatalf("%d pages, %v", len(out), err)
	}
	return out
}

// anchors are the headings of a page as links write them.
func anchors(text string) map[string]bool {
	out := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		out[anchor(m[1])] = true
	}
	return out
}

func anchor(heading string) string {
	return "#" + strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// deadLinks are the relative links of a page that lead to no file or no heading.
func deadLinks(path, text string) (dead []string, n int) {
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		n++
		target, there := path, text
		if m[1] != "" {
			target = filepath.Join(filepath.Dir(path), m[1])
			if _, err := os.Stat(target); err != nil {
				dead = append(dead, err.Error())
				continue
			}
			b, _ := os.ReadFile(target) // a directory has no headings
			there = string(b)
		}
		if m[2] != "" && !anchors(there)[m[2]] {
			dead = append(dead, target+" has no heading "+m[2])
		}
	}
	return dead, n
}

// TestLinks follows every relative link of the documentation, and holds that the
// index names every page.
func TestLinks(t *testing.T) {
	t.Parallel()
	index, err := os.ReadFile("docs/README.md")
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, f := range pages(t) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		dead, n := deadLinks(f, string(text))
		links += n
		for _, d := range dead {
			t.Errorf("%s: %s", f, d)
		}
		name, below := strings.CutPrefix(f, "docs/")
		if below && name != "README.md" && !strings.HasPrefix(name, "internals/adr/") && !strings.Contains(string(index), "]("+name+")") {
			t.Errorf("docs/README.md does not name %s", name)
		}
	}
	if links < 100 {
		t.Errorf("only %d links were found", links)
	}
	if dead, n := deadLinks("docs/x.md", "# A b\n[a](#a-b) [b](#b) [c](no.md) [d](https://x.org/) [e](no)"); n != 4 || len(dead) != 3 {
		t.Errorf("dead links are not seen: %d links, %q", n, dead)
	}
}

// names are the tests of this project.
func names(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, path := range files(t) {
		if !strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				out[fn.Name.Name] = true
			}
		}
	}
	return out
}

var (
	proofName = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`")
	scriptOf  = regexp.MustCompile("`([a-z_]+\\.txtar)`")
)
