// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/hosttest"
	"sandboxctl.dev/gofer"
)

// inMountNS runs f on a thread with a mount namespace of its own.
func inMountNS(t *testing.T, f func()) {
	t.Helper()
	hosttest.NeedsRoot(t, "mounting needs root")
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Not unlocked: the thread, and its namespace, end with this goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			t.Errorf("make mounts private: %v", err)
			return
		}
		f()
	}()
	<-done
}

// world is a directory with what is never shared, what may be, and mounts.
type world struct {
	t    *testing.T
	work string
}

func newWorld(t *testing.T, work string) world {
	w := world{t, work}
	for _, d := range []string{"lib/state/sandboxes/web", "lib/state2", "allowed/a", "allowed/plain", "allowed/deep/a", "x/state", "etc", "programs", "work"} {
		w.mkdir(d)
	}
	for _, f := range []string{"policy.yaml", "allowed/file", "programs/sandboxctl"} {
		w.check(os.WriteFile(w.at(f), nil, 0o600))
	}
	return w
}

func (w world) at(p string) string { return filepath.Join(w.work, p) }

func (w world) check(err error) {
	if err != nil {
		w.t.Error(err) // on a thread that is not the test's
	}
}

func (w world) mkdir(p string) { w.check(os.MkdirAll(w.at(p), 0o755)) }

func (w world) mount(source, target, typ string, flags uintptr, data string) {
	w.check(unix.Mount(source, w.at(target), typ, flags, data))
}

func (w world) bind(from, to string)    { w.mount(w.at(from), to, "", unix.MS_BIND|unix.MS_REC, "") }
func (w world) bindOne(from, to string) { w.mount(w.at(from), to, "", unix.MS_BIND, "") }
func (w world) tmpfs(at string)         { w.mount("tmpfs", at, "tmpfs", 0, "") }
func (w world) proc(at string)          { w.mount("proc", at, "proc", 0, "") }

// overlay mounts one that can be written if there is an upper directory.
func (w world) overlay(at, lower, upper string) {
	opts := "lowerdir=" + w.at(lower) + ":" + w.at("etc")
	if upper != "" {
		opts = "lowerdir=" + w.at(lower) + ",upperdir=" + w.at(upper) + ",workdir=" + w.at("work")
	}
	w.mount("overlay", at, "overlay", 0, opts)
}

// share asks for a directory or file of the world.
func (w world) share(p string, readOnly bool) error {
	f, err := os.OpenFile(w.at(p), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := SpotOf(f)
	if err != nil {
		return err
	}
	table, err := ReadTable()
	if err != nil {
		return err
	}
	var own []Own
	for _, o := range []Own{{Name: w.at("lib/state")}, {Name: w.at("policy.yaml")}, {Name: w.at("etc/none/manifests")}, {Name: w.at("programs/sandboxctl"), Writes: true}} {
		if o.Spot, err = SpotAt(o.Name); err != nil {
			return err
		}
		own = append(own, o)
	}
	never, err := table.NeverShared(own)
	if err != nil {
		return err
	}
	_, err = table.Check(s, readOnly, false, never)
	return err
}

// Every way to have a directory of this program's under another path is found, in
// both directions, and nothing else is.
func TestNeverShared(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mounts   func(w world)
		share    string
		readOnly bool
		want     string
	}{
		"a directory of its own":     {share: "allowed/plain"},
		"beside it":                  {share: "lib/state2"},
		"the state":                  {share: "lib/state", want: "it is part of WORK/lib/state, which is sandboxctl's own and never shared"},
		"read-only":                  {share: "lib/state", readOnly: true, want: "it is part of WORK/lib/state"},
		"its parent":                 {share: "lib", want: "it holds WORK/lib/state"},
		"a sandbox in it":            {share: "lib/state/sandboxes/web", want: "it is part of"},
		"bound to":                   {mounts: func(w world) { w.bind("lib/state", "allowed/a") }, share: "allowed/a", want: "open WORK/allowed/a: it is part of WORK/lib/state"},
		"bound below":                {mounts: func(w world) { w.bind("lib/state", "allowed/deep/a") }, share: "allowed", want: "WORK/allowed/deep/a is mounted there, and it is part of"},
		"bound, and a part of it":    {mounts: func(w world) { w.bind("lib/state", "allowed/a") }, share: "allowed/a/sandboxes", want: "it is part of"},
		"parent bound":               {mounts: func(w world) { w.bind("lib", "allowed/a") }, share: "allowed/a", want: "it holds"},
		"parent bound, beside":       {mounts: func(w world) { w.bind("lib", "allowed/a") }, share: "allowed/a/state2"},
		"child bound":                {mounts: func(w world) { w.bind("lib/state/sandboxes/web", "allowed/a") }, share: "allowed", readOnly: true, want: "it is part of"},
		"bound twice":                {mounts: func(w world) { w.bind("lib", "x"); w.bind("x/state", "allowed/a") }, share: "allowed/a", want: "it is part of"},
		"bound from":                 {mounts: func(w world) { w.bind("allowed/plain", "lib/state") }, share: "allowed/plain", want: "it is part of"},
		"bound from, above":          {mounts: func(w world) { w.bind("allowed/deep/a", "lib/state") }, share: "allowed/deep", want: "it holds"},
		"bound from, beside":         {mounts: func(w world) { w.bind("allowed/deep/a", "lib/state") }, share: "allowed/plain"},
		"a part of it bound from":    {mounts: func(w world) { w.bind("allowed/plain", "lib/state/sandboxes") }, share: "allowed/plain", want: "it is part of"},
		"on a filesystem of its own": {mounts: func(w world) { w.tmpfs("lib/state"); w.bind("lib/state", "allowed/a") }, share: "allowed/a", want: "it is part of"},
		"a filesystem in it":         {mounts: func(w world) { w.tmpfs("lib/state/sandboxes"); w.bind("lib/state/sandboxes", "allowed/a") }, share: "allowed/a", want: "it is part of"},
		"a filesystem of others":     {mounts: func(w world) { w.tmpfs("allowed/a") }, share: "allowed"},
		"mounted over": {
			mounts: func(w world) { w.bindOne("lib", "allowed/a"); w.tmpfs("lib/state") },
			share:  "allowed/a", want: "it holds",
		},
		"a mount point on the way": {
			mounts: func(w world) { w.bindOne(".", "allowed/a"); w.tmpfs("lib"); w.mkdir("lib/state") },
			share:  "allowed/a", want: "it holds",
		},
		"an overlay of it":              {mounts: func(w world) { w.overlay("allowed/a", "lib/state", "") }, share: "allowed/a", want: "it is part of"},
		"an overlay of it, a part":      {mounts: func(w world) { w.overlay("allowed/a", "lib/state", "") }, share: "allowed/a/sandboxes", want: "it is part of"},
		"an overlay that writes to it":  {mounts: func(w world) { w.overlay("allowed/a", "x", "lib/state/sandboxes") }, share: "allowed", want: "it is part of"},
		"an overlay of its parent":      {mounts: func(w world) { w.overlay("allowed/a", "lib", "") }, share: "allowed/a", want: "it holds"},
		"an overlay of an overlay":      {mounts: func(w world) { w.overlay("x", "lib", ""); w.overlay("allowed/a", "x/state", "") }, share: "allowed/a", want: "it is part of"},
		"an overlay of others":          {mounts: func(w world) { w.overlay("allowed/a", "x", "allowed/plain") }, share: "allowed"},
		"it is on an overlay":           {mounts: func(w world) { w.overlay("lib", "x", "allowed/plain"); w.mkdir("lib/state") }, share: "allowed/plain", want: "it holds"},
		"it is on an overlay, read":     {mounts: func(w world) { w.mkdir("x/state"); w.overlay("lib", "x", "allowed/plain") }, share: "x/state", readOnly: true, want: "it is part of"},
		"the work of its overlay":       {mounts: func(w world) { w.overlay("lib", "x", "allowed/plain"); w.mkdir("lib/state") }, share: "work", want: "it is part of"},
		"a file":                        {mounts: func(w world) { w.bind("policy.yaml", "allowed/file") }, share: "allowed/file", want: "it is part of WORK/policy.yaml"},
		"a file below":                  {mounts: func(w world) { w.bind("policy.yaml", "allowed/file") }, share: "allowed", readOnly: true, want: "it is part of WORK/policy.yaml"},
		"where there is nothing yet":    {mounts: func(w world) { w.bind("etc", "allowed/a") }, share: "allowed/a", want: "it holds WORK/etc/none/manifests"},
		"a program, read":               {mounts: func(w world) { w.bind("programs", "allowed/a") }, share: "allowed/a", readOnly: true},
		"a program, written":            {mounts: func(w world) { w.bind("programs", "allowed/a") }, share: "allowed/a", want: "it holds WORK/programs/sandboxctl, which no sandbox may write"},
		"a window on the kernel":        {mounts: func(w world) { w.proc("allowed/a") }, share: "allowed/a", want: "proc is never shared"},
		"a window on the kernel, below": {mounts: func(w world) { w.proc("allowed/deep/a") }, share: "allowed", want: "WORK/allowed/deep/a is mounted there, and proc is never shared"},
	} {
		inMountNS(t, func() {
			work, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Error(err)
				return
			}
			w := newWorld(t, work)
			if c.mounts != nil {
				c.mounts(w)
			}
			err = w.share(c.share, c.readOnly)
			want := strings.ReplaceAll(c.want, "WORK", work)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, expected %q", name, err, want)
			}
		})
	}
}

// A filesystem that is mounted twice, and a subvolume, are told by the list alone.
func TestSecondMount(t *testing.T) {
	t.Parallel()
	list := `1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 8:2 / /var/lib rw - ext4 /dev/sda2 rw
3 1 8:2 / /srv/again rw - ext4 /dev/sda2 rw
4 1 8:2 /other /srv/other rw - ext4 /dev/sda2 rw
5 1 0:40 /@state /state rw - btrfs /dev/sdb rw,subvol=/@state
6 1 0:40 / /srv/all rw - btrfs /dev/sdb rw
7 1 0:40 /@data /srv/data rw - btrfs /dev/sdb rw,subvol=/@data
`
	table, err := tableFrom(strings.NewReader(list))
	if err != nil {
		t.Fatal(err)
	}
	never, err := table.NeverShared([]Own{
		{Spot: Spot{Mount: 2, Path: "/var/lib/sandboxctl"}, Name: "the first"}, {Spot: Spot{Mount: 5, Path: "/state"}, Name: "the second"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for spot, want := range map[Spot]string{
		{Mount: 3, Path: "/srv/again"}:                      "it holds the first",
		{Mount: 3, Path: "/srv/again/sandboxctl/sandboxes"}: "it is part of the first",
		{Mount: 3, Path: "/srv/again/sandboxctl2"}:          "",
		{Mount: 4, Path: "/srv/other"}:                      "",
		{Mount: 6, Path: "/srv/all"}:                        "it holds the second",
		{Mount: 6, Path: "/srv/all/@state/x"}:               "it is part of the second",
		{Mount: 7, Path: "/srv/data"}:                       "",
		{Mount: 1, Path: "/srv"}:                            "/srv/again is mounted there, and it holds the first",
		{Mount: 1, Path: "/var"}:                            "it holds the first",
		{Mount: 9, Path: "/srv"}:                            "not in the list of mounts",
	} {
		_, err := table.Check(spot, true, false, never)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, expected %q", spot, err, want)
		}
	}
}

// The directories of an overlay, as the kernel writes them.
func TestOverlayDirs(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]string{
		"rw,lowerdir=/a:/b,upperdir=/u,workdir=/w,xino=off": "/a /b /u | /w",
		`rw,lowerdir=/a\134:b:/c\040d::/data`:               "/a:b /c d /data | ",
		"ro,lowerdir+=/a,lowerdir+=/b:c,datadir+=/d":        "/a /b:c /d | ",
		`rw,lowerdir=l/AB,upperdir=/u\054x`:                 "l/AB /u,x | ",
		"rw":                                                "| ",
	} {
		files, work := overlayDirs(options)
		got := strings.Join(files, " ") + " | " + strings.Join(work, " ")
		if strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("%s: %q, expected %q", options, got, want)
		}
	}
}

// What is found does not depend on the order of what is asked for.
func TestNeverSharedOnce(t *testing.T) {
	t.Parallel()
	table, err := tableFrom(strings.NewReader("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"))
	if err != nil {
		t.Fatal(err)
	}
	program := Own{Spot: Spot{Mount: 1, Path: "/a"}, Name: "program", Writes: true}
	state := Own{Spot: Spot{Mount: 1, Path: "/a"}, Name: "state"}
	for _, own := range [][]Own{{program, state}, {state, program}, {state, state}} {
		never, err := table.NeverShared(own)
		if err != nil || !slices.ContainsFunc(never, func(p gofer.Place) bool { return !p.Writes }) {
			t.Errorf("%+v of %+v, %v", never, own, err)
		}
	}
}
