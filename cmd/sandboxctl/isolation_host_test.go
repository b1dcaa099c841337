// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
)

// outside collects what the kernel says of the processes of a sandbox: the
// sentry, the processes in which its platform runs the application (stubs), and
// the gofer.
func (w *isolation) outside(t *testing.T, name string, rec *actual.Record) {
	t.Helper()
	pids := family(t, rec.Sentry.PID)
	if len(pids) < 2 {
		t.Errorf("the sentry has no stubs")
	}
	w.process(t, name, "sentry", pids[0], rec)
	// Without a controlling terminal it is not told when that is gone.
	if has, wants := hasTerminal(t, pids[0]), strings.Contains(w.kinds[name].spec, "terminal: true"); has != wants {
		t.Errorf("the sentry has a controlling terminal: %v, expected %v", has, wants)
	}
	for _, pid := range pids[1:] {
		w.process(t, name, "stub", pid, rec)
	}
	gofer := family(t, rec.Gofer.PID)
	if len(gofer) != 1 {
		t.Errorf("the gofer has started something: %v", gofer)
	}
	w.process(t, name, "gofer", gofer[0], rec)
}

// hasTerminal says whether a process has a controlling terminal.
func hasTerminal(t *testing.T, pid int) bool {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	// The name of the program, in parentheses, may have spaces. tty_nr is the fifth after it.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return fields[4] != "0"
}

func (w *isolation) process(t *testing.T, name, who string, pid int, rec *actual.Record) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d", pid)
	say := func(format string, a ...any) { w.add(name, who, fmt.Sprintf(format, a...)) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
	read := func(file string) string {
		t.Helper()
		b, err := os.ReadFile(proc + "/" + file)
		must(err)
		return string(b)
	}
	// Privileges are a thread's.
	threads, err := filepath.Glob(proc + "/task/*/status")
	must(err)
	looked := 0
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		looked++
		for line := range strings.Lines(string(text)) {
			switch key, value, _ := strings.Cut(line, ":"); key {
			case "Seccomp_filters":
				if who == "stub" {
					continue // one a generation
				}
				fallthrough
			case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Umask":
				value = strings.Join(strings.Fields(value), " ")
				if value == w.allCaps {
					value = capsAll // how many there are is the kernel's
				}
				say("%s %s", key, value)
			}
		}
	}
	if looked == 0 {
		t.Errorf("%s: no thread", who)
	}
	w.descriptors(t, name, who, proc)
	for _, ns := range []string{"mnt", "pid", "pid_for_children", "ipc", "uts", "net", "cgroup", "user", "time"} {
		theirs, err := os.Readlink(proc + "/ns/" + ns)
		if ns == "pid_for_children" && err != nil {
			continue // it has ended in a namespace without an init
		}
		must(err)
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		must(err)
		switch {
		case theirs == ours:
			say("namespace %s host", ns)
		case ns == "net" && w.isInner(t, theirs):
			say("namespace net NETNS")
		case ns == "net" && who == "gofer":
			w.onlyGofers(t, proc, theirs)
			w.goferNets[theirs] = true
			say("namespace net GOFERS")
		default:
			say("namespace %s own", ns)
		}
	}
	mounts := read("mountinfo")
	if mounts == "" {
		t.Errorf("%s: no mounts", who)
	}
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		options := strings.Split(f[5], ",")
		options = slices.DeleteFunc(options, func(o string) bool { return strings.Contains(o, "atime") })
		from := f[3]
		if strings.HasPrefix(f[4], "/m0/") {
			// What a host has of the parts of host root.
			f[4], from = "/m0/...", "the host"
		}
		say("mount %s %s of %s", f[4], strings.Join(options, ","), from)
	}
	for _, link := range []string{"root", "cwd", "exe"} {
		target, err := os.Readlink(proc + "/" + link)
		must(err)
		say("%s %s", link, target)
	}
	say("environment %q", read("environ"))
	say("oom_score_adj %s", strings.TrimSpace(read("oom_score_adj")))
	for line := range strings.Lines(read("limits")) {
		if strings.HasPrefix(line, "Max core file size") {
			say("%s", strings.Join(strings.Fields(line), " "))
		}
	}
	if own := regexp.MustCompile(`(?m)/` + rec.Name + `-` + rec.UID + `$`); !own.MatchString(read("cgroup")) {
		say("in no cgroup of its own: %s", read("cgroup"))
	}
	// What there is to see, of trees that are not the application's.
	root := proc + "/root"
	must(filepath.WalkDir(root+"/", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := filepath.Join("/", strings.TrimPrefix(p, root))
		// The second is there until a sentry boots.
		if regexp.MustCompile(`^(/m\d+|/proc/(sandbox|host)-proc)$`).MatchString(rel) {
			say("file %s", rel)
			return fs.SkipDir
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		say("file %s %s", rel, info.Mode())
		return nil
	}))
}

// onlyGofers fails the test if anything but gofers is in the network namespace of a
// gofer, or if they could find anything there: an interface that is up, or a socket
// with a name.
func (w *isolation) onlyGofers(t *testing.T, proc, link string) {
	t.Helper()
	var others []string
	w.h.until("the namespace of gofers has nobody else", func() bool {
		others = nil
		links, err := filepath.Glob("/proc/[0-9]*/ns/net")
		must(t, err)
		for _, l := range links {
			pid := filepath.Dir(filepath.Dir(l))
			if theirs, err := os.Readlink(l); err != nil || theirs != link {
				continue
			}
			// A process that is being started is the daemon's for a moment.
			if exe, err := os.Readlink(pid + "/exe"); err == nil && filepath.Base(exe) != "sandboxctl-gofer" {
				others = append(others, pid+" "+exe)
			}
		}
		return len(others) == 0
	})
	interfaces, err := os.ReadFile(proc + "/net/dev")
	must(t, err)
	for _, line := range strings.Split(strings.TrimSpace(string(interfaces)), "\n")[2:] {
		if name, counters, _ := strings.Cut(line, ":"); strings.TrimSpace(name) != "lo" || strings.Trim(counters, " 0") != "" {
			t.Errorf("interface of gofers: %s", line)
		}
	}
	addresses, err := os.ReadFile(proc + "/net/if_inet6") // ::1, if lo is up
	if err == nil && len(addresses) > 0 {
		t.Errorf("gofers have an address: %s", addresses)
	}
	sockets, err := os.ReadFile(proc + "/net/unix")
	must(t, err)
	for line := range strings.Lines(string(sockets)) {
		if f := strings.Fields(line); len(f) > 7 && f[0] != "Num" {
			t.Errorf("gofers have a socket with a name: %s", line)
		}
	}
}

// isInner says whether a link of /proc is the network namespace passed through.
func (w *isolation) isInner(t *testing.T, link string) bool {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/run/netns/"+w.netns, &st); err != nil {
		t.Fatal(err)
	}
	return link == fmt.Sprintf("net:[%d]", st.Ino)
}

// descriptors lists what a process has open.
func (w *isolation) descriptors(t *testing.T, name, who, proc string) {
	t.Helper()
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		t.Fatalf("%s: %v", who, err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(proc + "/fd/" + fd.Name())
		if err != nil {
			continue // closed by now
		}
		if strings.HasPrefix(target, "socket:") {
			if target, err = socketOf(proc, fd.Name()); err != nil {
				if _, gone := os.Readlink(proc + "/fd/" + fd.Name()); gone == nil {
					t.Errorf("%s: descriptor %s: %v", who, fd.Name(), err)
				}
				continue
			}
		}
		info, err := os.ReadFile(proc + "/fdinfo/" + fd.Name())
		if err != nil {
			continue
		}
		var flags int64
		for line := range strings.Lines(string(info)) {
			if v, ok := strings.CutPrefix(line, "flags:"); ok {
				flags, _ = strconv.ParseInt(strings.TrimSpace(v), 8, 64)
			}
		}
		mode := map[int64]string{unix.O_RDONLY: "r", unix.O_WRONLY: "w", unix.O_RDWR: "rw"}[flags&unix.O_ACCMODE]
		if flags&unix.O_PATH != 0 {
			mode = "path"
		}
		if flags&unix.O_APPEND != 0 {
			mode += "a"
		}
		w.add(name, who, fmt.Sprintf("descriptor %s %s", mode, target))
	}
}

// socketOf says what kind of socket another process has, by a copy of it.
func socketOf(proc, fd string) (string, error) {
	pid, err := strconv.Atoi(filepath.Base(proc))
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(fd)
	if err != nil {
		return "", err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(pidfd)
	s, err := unix.PidfdGetfd(pidfd, n, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(s)
	var v [3]int
	for i, opt := range []int{unix.SO_DOMAIN, unix.SO_TYPE, unix.SO_ACCEPTCONN} {
		if v[i], err = unix.GetsockoptInt(s, unix.SOL_SOCKET, opt); err != nil {
			return "", err
		}
	}
	text := fmt.Sprintf("socket family %d type %d", v[0], v[1])
	if v[2] != 0 {
		text += " listening"
	}
	if addr, err := unix.Getsockname(s); err == nil {
		if u, ok := addr.(*unix.SockaddrUnix); ok && u.Name != "" {
			text += " at " + u.Name
		}
	}
	return text, nil
}

// numbers of a run that mean nothing.
var runNumbers = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`\b(pipe|socket|mnt|net|pid|pid_for_children|ipc|uts|user|cgroup|time):\[\d+\]`), "$1:[N]"},
	{regexp.MustCompile(`/proc/\d+/`), "/proc/N/"},
	{regexp.MustCompile(` \(deleted\)$`), ""},
	{regexp.MustCompile(`(memfd:[a-z_-]*[a-z])[-_]?\d[0-9a-f]*$`), "$1"},
	{regexp.MustCompile(`/proc/self/fd/\d+/control.sock`), "/proc/self/fd/N/control.sock"},
	{regexp.MustCompile(`(descriptor \S+ /m\d+)/.*`), "$1/..."},
	{regexp.MustCompile(`/dev/pts/\d+`), "/dev/pts/N"},
	{regexp.MustCompile(`(/\.sandboxctl-tmp-)[0-9a-f]+`), "${1}N"},
	{regexp.MustCompile(`host:\[\d+\]`), "host:[N]"},
	{regexp.MustCompile(` ?fe80::[0-9a-f:]+/64`), ""},
	{regexp.MustCompile(`rfdno=\d+,wfdno=\d+`), "rfdno=N,wfdno=N"},
}

// add records a fact of a kind, in words that are the same in every run and on
// every host.
func (w *isolation) add(kind, who, fact string) {
	for _, r := range [][2]string{
		{w.h.state + "/sandboxes/" + kind, "STATE"},
		{w.h.work + "/oci", "RUNTIME"},
		{w.h.work, "WORK"},
		{binDir, "BIN"},
		{w.bait.Abstract, "ABSTRACT"},
		{w.netns, "NETNS"},
	} {
		fact = strings.ReplaceAll(fact, r[0], r[1])
	}
	if strings.Contains(fact, "uname ") {
		fact = strings.Replace(fact, " "+kind+" ", " NAME ", 1)
	}
	for _, n := range runNumbers {
		fact = n.re.ReplaceAllString(fact, n.to)
	}
	if w.kinds[kind].sharedNet && regexp.MustCompile(`^[+-]? ?(interface|socket|try route to) `).MatchString(fact) {
		return // what the host's network is like
	}
	w.facts[kind] = append(w.facts[kind], strings.TrimSpace(who+": "+fact))
}

const (
	isolationDir = "testdata/isolation"
	commonList   = "common"
	// more and less begin lines of what a kind has and the others have not, and the
	// other way round; maybe those of what is there in some runs only.
	more, less, maybe = "+ ", "- ", "? "
)

func readList(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(isolationDir, name+".txt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	must(t, err)
	var out []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

// allowed are the facts that a kind may have, and whether it must.
func allowed(t *testing.T, names ...string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, l := range readList(t, commonList) {
		f, optional := strings.CutPrefix(l, maybe)
		out[f] = !optional
	}
	for _, name := range names {
		for _, l := range readList(t, name) {
			switch f := l[2:]; l[:2] {
			case more, maybe:
				out[f] = l[:2] == more
			case less:
				if _, ok := out[f]; !ok {
					t.Errorf("%s.txt takes away what is not in the lists before: %s", name, f)
				}
				delete(out, f)
			default:
				t.Errorf("%s.txt: not a line of a list: %q", name, l)
			}
		}
	}
	return out
}

// compare holds the facts of a kind against the lists.
func (w *isolation) compare(t *testing.T, name string) {
	t.Helper()
	list := allowed(t, name, w.way)
	facts := sortedFacts(w.facts[name])
	for _, f := range facts {
		if _, ok := list[f]; !ok {
			t.Errorf("not allowed: %s", f)
		}
	}
	for f, must := range list {
		if _, found := slices.BinarySearch(facts, f); !found && must {
			t.Errorf("not seen: %s", f)
		}
	}
}

func sortedFacts(facts []string) []string {
	facts = slices.Clone(facts)
	slices.Sort(facts)
	return slices.Compact(facts)
}

// fleeting is what is there now and then: files that the application has open,
// and callers.
var fleeting = regexp.MustCompile(`^(sentry|stub|gofer): descriptor (\S+ /m\d+/\.\.\.|rw socket family 1 type 1 at /proc/self/fd/N/control.sock)$`)

// update writes the lists. What most kinds have is common to all; what was said
// to be there in some runs only stays so.
func (w *isolation) update(t *testing.T) {
	t.Helper()
	kept := func(name string) map[string]bool {
		out := map[string]bool{}
		for _, l := range readList(t, name) {
			if f, ok := strings.CutPrefix(l, maybe); ok {
				out[f] = true
			}
		}
		return out
	}
	count, commonMaybe := map[string]int{}, kept(commonList)
	for _, facts := range w.facts {
		for _, f := range sortedFacts(facts) {
			count[f]++
			if fleeting.MatchString(f) {
				commonMaybe[f] = true
			}
		}
	}
	write := func(name, what string, lines []string) {
		t.Helper()
		text := "# " + what + "\n" + strings.Join(sortedFacts(lines), "\n") + "\n"
		must(t, os.WriteFile(filepath.Join(isolationDir, name+".txt"), []byte(text), 0o644))
	}
	var common []string
	isCommon := map[string]bool{}
	for f := range commonMaybe {
		common = append(common, maybe+f)
	}
	for f, n := range count {
		if n > len(w.kinds)/2 && !commonMaybe[f] {
			common = append(common, f)
			isCommon[f] = true
		}
	}
	for name, facts := range w.facts {
		facts = sortedFacts(facts)
		var own []string
		ownMaybe := kept(name)
		for f := range ownMaybe {
			own = append(own, maybe+f)
		}
		for _, f := range facts {
			if !isCommon[f] && !commonMaybe[f] && !ownMaybe[f] {
				own = append(own, more+f)
			}
		}
		for f := range isCommon {
			if _, found := slices.BinarySearch(facts, f); !found && !ownMaybe[f] {
				own = append(own, less+f)
			}
		}
		write(name, "Beyond common.txt (+), not there (-), there in some runs only (?).", own)
	}
	write(commonList, "What most kinds of sandboxes have; a question mark begins what is there in some runs only.", common)
}

// ofProc is an open file of procfs.
var ofProc = regexp.MustCompile(`: descriptor \S+ /proc`)

// laws hold whatever the lists say.
func (w *isolation) laws(t *testing.T, name string) {
	t.Helper()
	k := w.kinds[name]
	ids := func(uid string) string { return strings.Repeat(uid+" ", 3) + uid }
	net := "own"
	switch {
	case k.sharedNet:
		net = "host"
	case strings.Contains(k.spec, "mode: netns"):
		net = "NETNS"
	}
	// The one value that a fact of this name may have.
	want := map[string]string{
		"sentry: Uid": ids(k.sentryUID), "sentry: Gid": ids(k.sentryUID), "sentry: CapEff": k.sentryCaps, "sentry: CapPrm": k.sentryCaps, "sentry: CapBnd": k.sentryBound,
		"gofer: Uid": ids(k.goferUID), "gofer: Gid": ids(k.goferUID), "gofer: CapEff": k.goferCaps, "gofer: CapPrm": k.goferCaps, "gofer: CapBnd": capsNone,
		"sentry: namespace user": k.ownUser, "gofer: namespace user": "own", "sentry: namespace net": net, "gofer: namespace net": "GOFERS",
	}
	for _, who := range []string{"sentry: ", "gofer: ", "stub: "} {
		for key, value := range map[string]string{
			"CapInh": capsNone, "CapAmb": capsNone, "NoNewPrivs": "1", "Seccomp": "2", "Groups": "", "environment": `""`, "root": "/", "cwd": "/",
			"Max core file size": "0 0 bytes", "namespace mnt": "own", "namespace pid": "own", "namespace ipc": "own", "namespace uts": "own", "namespace cgroup": "own",
		} {
			want[who+key] = value
		}
	}
	for key, value := range want {
		seen := false
		for _, f := range w.facts[name] {
			if got, ok := strings.CutPrefix(f, key); ok && (got == "" || got[0] == ' ') {
				seen = true
				if got = strings.TrimSpace(got); got != value {
					t.Errorf("%s is %q, expected %q", key, got, value)
				}
			}
		}
		if !seen {
			t.Errorf("%s was not seen", key)
		}
	}
	for _, f := range w.facts[name] {
		if strings.Contains(f, "canary") && strings.Contains(f, ": yes") {
			t.Errorf("a file of the host was read: %s", f)
		}
		if ofProc.MatchString(f) {
			t.Errorf("a descriptor of the host's /proc: %s", f)
		}
		if strings.HasPrefix(f, "volume: ") && !strings.HasSuffix(f, "device 0") {
			t.Errorf("a device was made on the host: %s", f)
		}
	}
}
