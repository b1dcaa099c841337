// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// errnos are what the system calls of the daemon may fail with.
var errnos = map[string][]unix.Errno{
	"openat":            {unix.EMFILE, unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EPERM, unix.ENOMEM, unix.EINTR},
	"openat2":           {unix.EMFILE, unix.EIO, unix.EPERM, unix.ENOMEM, unix.EAGAIN, unix.EINTR},
	"write":             {unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EINTR},
	"pwrite64":          {unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EINTR},
	"fsync":             {unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EINTR},
	"renameat":          {unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EPERM, unix.ENOMEM},
	"renameat2":         {unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EPERM, unix.ENOMEM},
	"mkdirat":           {unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EPERM, unix.ENOMEM},
	"unlinkat":          {unix.EIO, unix.EPERM, unix.ENOMEM},
	"ftruncate":         {unix.EIO, unix.EPERM, unix.EINTR},
	"fchmod":            {unix.EIO, unix.EPERM},
	"fchown":            {unix.EIO, unix.EPERM},
	"fsetxattr":         {unix.ENOSPC, unix.EIO, unix.ENOMEM},
	"fcntl":             {unix.EMFILE, unix.EPERM, unix.ENOMEM},
	"open_tree":         {unix.EMFILE, unix.EPERM, unix.ENOMEM},
	"move_mount":        {unix.EPERM, unix.ENOMEM},
	"mount_setattr":     {unix.EPERM, unix.ENOMEM},
	"mount":             {unix.EPERM, unix.ENOMEM},
	"umount2":           {unix.EPERM, unix.ENOMEM},
	"fsopen":            {unix.EMFILE, unix.EPERM, unix.ENOMEM},
	"fsconfig":          {unix.EPERM, unix.ENOMEM},
	"fsmount":           {unix.EMFILE, unix.EPERM, unix.ENOMEM},
	"unshare":           {unix.EPERM, unix.ENOMEM},
	"setns":             {unix.EPERM, unix.ENOMEM},
	"clone":             {unix.EAGAIN, unix.ENOMEM, unix.EPERM},
	"clone3":            {unix.EAGAIN, unix.ENOMEM, unix.EPERM},
	"pidfd_open":        {unix.EMFILE, unix.ENOMEM, unix.EPERM},
	"pidfd_send_signal": {unix.EPERM, unix.ENOMEM},
	"waitid":            {unix.EINTR, unix.EIO},
	"inotify_init1":     {unix.EMFILE, unix.ENOMEM},
	"inotify_add_watch": {unix.ENOSPC, unix.ENOMEM, unix.EPERM},
	"epoll_create1":     {unix.EMFILE, unix.ENOMEM},
	"epoll_ctl":         {unix.ENOSPC, unix.ENOMEM},
	"eventfd2":          {unix.EMFILE, unix.ENOMEM},
	"socket":            {unix.EMFILE, unix.ENOMEM, unix.EPERM},
	"connect":           {unix.EAGAIN, unix.EPERM, unix.EINTR},
	"bind":              {unix.ENOSPC, unix.EIO, unix.ENOMEM},
	"socketpair":        {unix.EMFILE, unix.ENOMEM},
	"pipe2":             {unix.EMFILE, unix.ENOMEM},
	"memfd_create":      {unix.EMFILE, unix.ENOMEM},
	"flock":             {unix.EINTR, unix.ENOLCK, unix.EIO},
	"getdents64":        {unix.EIO, unix.ENOMEM},
	"newfstatat":        {unix.EIO, unix.ENOMEM},
	"fstatfs":           {unix.EIO, unix.ENOMEM},
	"statx":             {unix.EIO, unix.ENOMEM},
}

// oneFault is a single call that fails.
type oneFault struct {
	call  string
	n     int
	errno unix.Errno
}

func (f oneFault) String() string {
	return fmt.Sprintf("%s:error=%s:when=%d", f.call, unix.ErrnoName(f.errno), f.n)
}

// named says whether a text tells of the fault. Where Go's runtime can't start in a program
// that pulls it says so in its own way.
func (f oneFault) named(text string) bool {
	return strings.Contains(text, f.errno.Error()) || strings.HasPrefix(f.call, ofPuller) && strings.Contains(text, "fatal error: ")
}

// exempt says of a call that it does not fail: it writes what the daemon says,
// which is not the daemon's to mend, or wakes Go's runtime, which ends if it
// can't.
func exempt(call string, arg argument) bool {
	return strings.TrimPrefix(call, ofPuller) == "write" && (arg.call.args[0] <= 2 || arg.path() == "anon_inode:[eventfd]")
}

// lane is a world in which faults are tried one after the other, beside a
// sandbox that is to live through all of them.
type lane struct {
	*world
	keep  twin
	clean bool // the daemon has no faults any more
	began int64
}

func newLane(t *testing.T) *lane {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	must(t, keepVersion(t.Context()))
	l := &lane{world: newWorld(t, "--resync", "1s", "--poll", "200ms", "--sentry", self)}
	l.layout(false)
	l.put(l.name("keep"), l.manifest(l.name("keep"), 0, ""))
	l.start()
	l.settle()
	l.keep = l.twins()[l.name("keep")]
	l.stop(unix.SIGTERM)
	return l
}

func (l *lane) name(s string) string { return l.prefix + "-" + s }

// live has the lane's daemon checked: it may end only before it has started, and
// then says why.
func (l *lane) live(errno unix.Errno) {
	l.t.Helper()
	if !l.daemon.ended() {
		return
	}
	log := l.logFrom(l.began)
	started := strings.Contains(log, `msg="daemon started"`)
	// Where Go's runtime itself can't start it says so in its own way.
	named := strings.Contains(log, "sandboxctl: ") && strings.Contains(log, errno.Error()) || strings.Contains(log, "fatal error: runtime: ")
	if started || l.clean || !named {
		l.t.Fatalf("the daemon has ended: %v\n%s", l.daemon.err, log)
	}
	l.clean = true
	l.start()
}

// await waits for a state of the lane, with whatever daemon.
func (l *lane) await(what string, errno unix.Errno) {
	l.t.Helper()
	l.world.until(what, func() error {
		// A daemon that ends after this is judged at the next look.
		l.live(errno)
		if err := l.asManifests(); err != nil {
			return err
		}
		return l.left(l.store)
	})
	if now := l.twins()[l.name("keep")]; now != l.keep {
		l.t.Fatalf("%s: the sandbox that nobody touched was %v and is %v\n%s", what, l.keep, now, l.logFrom(l.began))
	}
}

// ofImage is the text of a manifest as manifest writes it, with an image for its root.
func (l *lane) ofImage(name string, variant int, tag string) string {
	return strings.Replace(l.manifest(name, variant, ""), "root: {dir: "+l.dir+"/rootfs}", "root: {image: {ref: '"+l.ref(tag)+"'}}", 1)
}

// forget removes the store of images, so that the next scenario pulls again.
func (l *lane) forget() {
	l.t.Helper()
	must(l.t, os.RemoveAll(filepath.Join(l.state, "images")))
}

// scenario creates three sandboxes, one of them of an image, replaces two, restarts one
// and removes all, with a daemon that comes new to one that runs.
func (l *lane) scenario(fail func(call string, n int, arg argument) unix.Errno, errno unix.Errno) *injector {
	l.t.Helper()
	a, b, c := l.name("a"), l.name("b"), l.name("c")
	l.forget()
	l.began, l.clean = l.logSize(), false
	l.put(a, l.manifest(a, 1, ""))
	l.put(b, l.manifest(b, 1, ""))
	l.put(c, l.ofImage(c, 1, "v1"))
	in := l.inject(fail)
	l.await("create", errno)
	l.put(a, l.manifest(a, 2, ""))
	l.put(c, l.ofImage(c, 2, "v2"))
	if out, err := l.run("restart", b); err != nil {
		l.t.Fatalf("restart: %v\n%s", err, out)
	}
	l.await("replace and restart", errno)
	l.remove(a)
	l.remove(b)
	l.remove(c)
	l.await("remove", errno)
	l.stop(unix.SIGTERM)
	if l.daemon.err != nil && !strings.Contains(l.logFrom(l.began), errno.Error()) {
		l.t.Fatalf("the daemon has ended with %v\n%s", l.daemon.err, l.logFrom(l.began))
	}
	return in
}

// never is the injector that only counts.
func never(string, int, argument) unix.Errno { return 0 }

func once(f oneFault) func(string, int, argument) unix.Errno {
	return func(call string, n int, arg argument) unix.Errno {
		if call == f.call && n == f.n && !exempt(call, arg) {
			return f.errno
		}
		return 0
	}
}

// TestEveryCallFailsOnce has every system call of the daemon fail once, while
// sandboxes are created, replaced, restarted and removed: it goes on, nothing
// else is stopped, and in the end all is as the manifests say and nothing left.
// FAULTS is how many are tried, spread over all that there are (0: all); FAULT
// tries one alone: CALL:error=ERRNO:when=N.
func TestEveryCallFailsOnce(t *testing.T) {
	requireHost(t)
	count := newLane(t).scenario(never, 0).total()
	all := allFaults(t, count)
	t.Logf("%d faults, calls of a run without: %v", len(all), count)
	if one := os.Getenv("FAULT"); one != "" {
		all = slices.DeleteFunc(all, func(f oneFault) bool { return f.String() != one })
	} else if n := int(number(t, "FAULTS", 60)); n > 0 && n < len(all) {
		all = spread(all, n, number(t, "SEED", 1))
	}
	var mu sync.Mutex
	hit, silent := 0, 0
	began := time.Now()
	lanes(t, all, func(l *lane, f oneFault) {
		l.t.Logf("FAULT=%s", f)
		in := l.scenario(once(f), f.errno)
		mu.Lock()
		defer mu.Unlock()
		for _, what := range in.faults() {
			hit++
			if f.named(l.logFrom(l.began)) {
				continue
			}
			silent++
			// A pull ends when nobody waits for it any more, be it by its own failure: its image
			// is in the store before its last step, and then a start takes it.
			cancelled := strings.HasPrefix(f.call, ofPuller) && strings.Contains(l.logFrom(l.began), `msg="cancel pull"`)
			if !cancelled && !isAbsorbed(f, what.path) {
				l.t.Errorf("nobody was told of FAULT=%s at %s\n%s", f, what.path, l.logFrom(l.began))
			}
		}
	})
	t.Logf("%d of %d faults came about in %s, of which %d were absorbed without a word", hit, len(all), time.Since(began).Round(time.Second), silent)
}

// absorbed are the faults that nobody is told of, and why not.
var absorbed = []struct {
	call, path string // regular expressions
	errno      unix.Errno
}{
	{".*", ".*", unix.EINTR},               // tried again
	{"openat2|connect", ".*", unix.EAGAIN}, // tried again
	// Go's runtime and library try what this kernel can, and do without.
	{"clone|pidfd_open|pidfd_send_signal", ".*", 0},
	{"epoll_create1|eventfd2|epoll_ctl|fcntl", ".*", 0},
	{"openat|fstat.*|newfstatat", "^/(sys|etc|proc|dev)/.*", 0},
	// What becomes of it is told in the words of a child that did not get on.
	{"write", "^pipe:", 0},
	// Asked for again at the next poll; what lasts longer is told.
	{"inotify_.*", ".*", 0},
	// A zombie is taken away the next time; a file that can't be locked can't be
	// swept.
	{"waitid|flock", ".*", 0},
	// Asked for again in the next pass, which is due at once.
	{"open.*|statx|newfstatat|getdents64", "/(m|s|s/requests)(/[^/]*)?$", 0},
	// The way to the manifests begins there. If a look at the files that changed fails on
	// it, a look at all of them follows; if that fails, or the policy, it is told.
	{"openat", "^/(tmp(/Test[^/]*(/[0-9]+)?)?)?$", 0},
	// Counted at the start; the first pass looks again, and tells.
	{"open.*|newfstatat", "/s/sandboxes/[^/]*(/meta.json)?$", 0},
	// Directories above that are there: what can't be looked at is tried to be made.
	{"newfstatat", "/Test[^/]*(/[0-9]+)?(/s)?$", 0},
	// A process that can't be judged is judged in the next pass.
	{"fstatfs", "\\[pidfd\\]$", 0},
	// The trash is emptied again soon; what lasts is told.
	{"unlinkat|renameat.*|open.*|getdents64|newfstatat|statx|ioctl|fstat.*|fchmod.*", "/s/trash(/|$)", 0},
	// Whether the command is there is looked at for the message only; if it is not, the
	// sentry says so too.
	{"openat2", "/rootfs(/.*)?$", 0},
	// What is known of an image that can't be opened is looked at again in the next pass;
	// what lasts fails the start, which tells.
	{"openat2", "/s/images/[0-9a-f]+\\.(json|erofs)$", 0},
	// What a reference meant before is written anew by a pull that can't read it; the daemon
	// looks again in the next pass.
	{"openat2", "/s/images/refs/[0-9a-f]+\\.json$", 0},
	// What pulls have left that were killed is removed by the next pull; "image prune" tells.
	{"openat|getdents64", "/s/images(/(refs|pulls))?$", 0},
	// The kernel may take a pull later than it should.
	{"openat|write", "/oom_score_adj$", 0},
	// A store of images that can't be seen is opened again in the next pass, which tells.
	{"newfstatat", "/s/images(/(refs|pulls))?$", 0},
	// A file that manifests refer to is looked at again soon; what lasts is told.
	{"open.*|newfstatat|statx|fstatfs", "/files(/[^/]*)?$", 0},
	// How much logs take is asked again in the next pass.
	{"open.*|newfstatat|statx|getdents64", "/(logs|s/deleted)(/[^/]*)*$", 0},
	// The kernel says who holds the lock; its text is for people.
	{"pwrite64|ftruncate", "/daemon.lock$", 0},
	// What frees something, and the daemon's own file, is written over the reserve.
	{"open.*|write|fsync|renameat2", "/s/(sandboxes/[^/]*/)?(meta.json|daemon.json|.sandboxctl-tmp[^/]*)$", unix.ENOSPC},
	{"open.*|write|fsync|renameat2", "/s/(sandboxes/[^/]*/)?(meta.json|daemon.json|.sandboxctl-tmp[^/]*)$", unix.EDQUOT},
	{"fsync", "/s(/sandboxes/[^/]+)?$", unix.ENOSPC}, // the same write, of its directory
	{"fsync", "/s(/sandboxes/[^/]+)?$", unix.EDQUOT},
	// Of a sandbox that was stopped on purpose, whose exit code is of no account.
	{"open.*", "/exit.json$|/gofer-exit.json$", 0},
}

func isAbsorbed(f oneFault, path string) bool {
	for _, a := range absorbed {
		if (a.errno == 0 || a.errno == f.errno) && regexp.MustCompile("^("+a.call+")$").MatchString(strings.TrimPrefix(f.call, ofPuller)) && regexp.MustCompile(a.path).MatchString(path) {
			return true
		}
	}
	return false
}

// lanes tries faults, several at a time: most of it is waiting.
func lanes(t *testing.T, all []oneFault, try func(*lane, oneFault)) {
	t.Helper()
	work := make(chan oneFault)
	go func() {
		defer close(work)
		for _, f := range all {
			work <- f
		}
	}()
	var wg sync.WaitGroup
	for i := range int(number(t, "LANES", 6)) {
		// Not by t.Parallel, which goes by the number of processors.
		wg.Go(func() {
			t.Run(fmt.Sprint("lane", i), func(t *testing.T) {
				l := newLane(t)
				for f := range work {
					try(l, f)
				}
			})
		})
	}
	wg.Wait()
	for range work { // a lane that has failed has left some
	}
}

// allFaults are those that a run can have, in an order that spreads them.
func allFaults(t *testing.T, count map[string]int) []oneFault {
	t.Helper()
	var out []oneFault
	for call, n := range count {
		of := errnos[strings.TrimPrefix(call, ofPuller)]
		if len(of) == 0 {
			t.Errorf("it is not said what %s fails with", call)
		}
		for _, e := range of {
			for i := range n {
				out = append(out, oneFault{call, i + 1, e})
			}
		}
	}
	slices.SortFunc(out, func(a, b oneFault) int {
		return cmp.Or(cmp.Compare(a.call, b.call), cmp.Compare(a.errno, b.errno), cmp.Compare(a.n, b.n))
	})
	return out
}

// spread takes n of the faults, drawn by the seed: of each call with each error as many,
// or of some of them one.
func spread(all []oneFault, n int, seed int64) []oneFault {
	groups := map[string][]oneFault{}
	for _, f := range all {
		key := f.call + unix.ErrnoName(f.errno)
		groups[key] = append(groups[key], f)
	}
	each := max(1, n/len(groups))
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	var out []oneFault
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		g := groups[key]
		r.Shuffle(len(g), func(i, j int) { g[i], g[j] = g[j], g[i] })
		out = append(out, g[:min(each, len(g))]...)
	}
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(n, len(out))]
}
