// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/moment"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/upgrade"
)

// full is a record with what version 5 has added, beside the fields of sample.
func full(name string) *Record {
	r := sample(name)
	at := r.CreatedAt
	r.App().Active, r.App().Finished, r.Ending.Until, r.Retired = &moment.Active{From: onWall(at), Earlier: time.Second}, new(onWall(at)), at, true
	r.Inputs, r.InputChanges, r.Refresh = []Input{{File: "/srv/i", ID: "i"}}, 1, &Refresh{Pending: []string{"v"}, At: at, Count: 1}
	r.OnDisk, r.Attachments = []OnDisk{{Volume: "v", Size: 1, FD: 3}}, []Attachment{{Network: "front", Link: "l", Interface: "eth0", MTU: 1500}}
	return r
}

// sample is a record with every field that versions up to 4 had.
func sample(name string) *Record {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return &Record{
		Version: RecordVersion, Name: name, UID: "0123456789abcdef0123456789abcdef", Attempt: 3, Generation: 2, Phase: PhaseRunning,
		Spec: json.RawMessage(`{"apiVersion":"sandboxctl.dev/v1alpha1"}`), SpecHash: "v1:00", SourceFile: "web.yaml", SourceDigest: "d", RestartToken: "t",
		BootID: "b", Sentry: &process.Identity{PID: 100, Inode: 7, StartTime: 8, BootID: "b"}, Gofer: &process.Identity{PID: 101, Inode: 9, StartTime: 8, BootID: "b"},
		SentryBinary: "/bin/s", GoferBinary: "/bin/g", GVisor: "1.2", SetupFile: true, Cgroups: []string{"/sys/fs/cgroup/sandboxctl/x"}, Warnings: []Warning{{Reason: "R", Message: "m"}},
		CreatedAt: at,
		Ending:    &Ending{Reason: "Exited", StopSignal: "SIGTERM", Grace: time.Second, Containers: []ContainerEnding{{Name: AppName, Failures: 1}}},
		Network:   &Network{Path: "/run/netns/web", Inode: 4026531840, Config: json.RawMessage(`{"links":[]}`)},
		Files:     []SharedFile{{Path: "/srv/f", Device: 1, Inode: 2}},
		Containers: []Container{{
			Name: AppName, Init: InitOwn, Hooks: json.RawMessage(`{"bundle":"/srv/b"}`), StartedAt: at, Failures: 1, Restarts: 2,
			LastExit: &Exit{Known: true, Code: 1, Reason: ReasonError, At: at}, Completed: true,
		}},
	}
}

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t *testing.T, s *Store, r *Record) {
	t.Helper()
	if err := s.Claim(r.Name); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if err := s.Put(r); err != nil {
		t.Fatal(err)
	}
}

// metaPath is where the record of a name is, for tests that damage it.
func metaPath(s *Store, name string) string {
	return filepath.Join(s.Path(), SandboxesDir, name, RecordFile)
}

func TestRecordGolden(t *testing.T) {
	b, err := EncodeRecord(full("web"))
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", fmt.Sprintf("v%d.json", RecordVersion))
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	// It is on disks: what this program writes and what it reads of it must not
	// change.
	if !bytes.Equal(b, want) {
		t.Errorf("a record is written as\n%s\nexpected\n%s", b, want)
	}
	r, err := DecodeRecord(want)
	if err != nil {
		t.Fatal(err)
	}
	again, err := EncodeRecord(r)
	if err != nil || !bytes.Equal(again, want) {
		t.Errorf("decoded and encoded again: %v\n%s", err, again)
	}
}

// A record that an earlier version of this program wrote is read whole.
func TestRecordUpgrade(t *testing.T) {
	t.Parallel()
	for v := 1; v < RecordVersion; v++ {
		old, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("v%d.json", v)))
		if err != nil {
			t.Fatal(err)
		}
		r, err := DecodeRecord(old)
		if err != nil {
			t.Fatalf("version %d: %v", v, err)
		}
		want := sample("web")
		if v < 2 {
			want.Network = nil
		}
		if v < 3 {
			want.App().Hooks, want.Files, want.GVisor, want.GoferBinary, want.App().Init, want.SetupFile = nil, nil, "", "", "", false
		}
		if got, err := EncodeRecord(r); err != nil {
			t.Error(err)
		} else if b, err := EncodeRecord(want); err != nil || !bytes.Equal(got, b) {
			t.Errorf("version %d became\n%s\nexpected\n%s %v", v, got, b, err)
		}
	}
}

// Exits of older records keep what they say of trying again.
func TestRecordUpgradeExits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		exits             string
		last, ending, bad bool
	}{
		"last":       {`"lastExit":{"known":false,"code":0,"reason":"CreateFailed","at":"2026-01-02T03:04:05Z","terminal":true}`, true, false, false},
		"ending":     {`"ending":{"reason":"Exited","exit":{"known":false,"code":0,"reason":"CreateFailed","at":"2026-01-02T03:04:05Z","terminal":true}}`, false, true, false},
		"not":        {`"lastExit":{"known":true,"code":1,"reason":"Error","at":"2026-01-02T03:04:05Z"},"ending":{"reason":"Exited"}`, false, false, false},
		"null":       {`"lastExit":null,"ending":null`, false, false, false},
		"null below": {`"ending":{"reason":"Exited","exit":null}`, false, false, false},
		"no object":  {`"lastExit":[1]`, false, false, true},
	} {
		for v := 1; v < 4; v++ { // then they became those of containers
			r, err := DecodeRecord(reseal(fmt.Sprintf(`{"version":%d,"name":"web","uid":"u","phase":"Stopped",%s}`, v, c.exits)))
			if c.bad {
				if err == nil {
					t.Errorf("%s, version %d: no error", name, v)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s, version %d: %v", name, v, err)
				continue
			}
			if got := r.App().LastExit != nil && r.App().LastExit.Permanent; got != c.last {
				t.Errorf("%s, version %d: last exit permanent %t", name, v, got)
			}
			if got := r.Ending != nil && r.Ending.App().Exit != nil && r.Ending.App().Exit.Permanent; got != c.ending {
				t.Errorf("%s, version %d: ending permanent %t", name, v, got)
			}
		}
	}
}

// reseal makes a file with a right checksum of a wrong body.
func reseal(body string) []byte {
	return fmt.Appendf(nil, "%s%08x%s%s%s", head, checksum([]byte(body)), mid(recordKind), body, tail)
}

func TestRecordHostile(t *testing.T) {
	t.Parallel()
	body := func(change func(m map[string]any)) string {
		b, err := json.Marshal(sample("web"))
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		b, err = json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	pid := func(n any) func(map[string]any) {
		return func(m map[string]any) { m["sentry"].(map[string]any)["pid"] = n }
	}
	set := func(k string, v any) func(map[string]any) { return func(m map[string]any) { m[k] = v } }
	if _, err := DecodeRecord(reseal(body(func(map[string]any) {}))); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for name, change := range map[string]func(map[string]any){
		"pid -1": pid(-1), "pid 0": pid(0), "pid 1": pid(1), "pid 2^31": pid(1 << 31), "pid 2^63": pid(json.Number("9223372036854775808")), "pid text": pid("7"), "pid null": pid(nil), "identity list": set("sentry", []int{1}),
		"version 0": set("version", 0), "version text": set("version", "x"), "version null": set("version", nil), "version -1": set("version", -1), "version 2^63": set("version", json.Number("9223372036854775808")), "version 1.5": set("version", 1.5), "name ..": set("name", ".."), "name slash": set("name", "a/b"),
		"no uid": set("uid", ""), "phase": set("phase", "Dancing"), "unknown field": set("sandboxRoot", "/"), "attempt": set("attempt", -1),
		"failures text": func(m map[string]any) { m["containers"].([]any)[0].(map[string]any)["failures"] = "many" },
	} {
		if r, err := DecodeRecord(reseal(body(change))); err == nil {
			t.Errorf("%s: taken for a record: %+v", name, r)
		}
	}
	_, err := DecodeRecord(reseal(body(set("version", 999))))
	if !errors.Is(err, upgrade.ErrNewer) {
		t.Errorf("version 999: %v, expected upgrade.ErrNewer", err)
	}
}

func TestStoreLifecycle(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if err := s.Put(sample("web")); err == nil {
		t.Error("a record was written for a name that nobody has claimed")
	}
	if err := s.Claim("web"); err != nil {
		t.Fatal(err)
	}
	if err := s.Claim("web"); err != nil {
		t.Errorf("an aborted claim is not taken over: %v", err)
	}
	put(t, s, sample("web"))
	if err := s.Claim("web"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("claimed twice: %v", err)
	}
	r, h, err := s.Get("web")
	if err != nil || h != nil || r.Attempt != 3 {
		t.Fatalf("%v %v %v", r, h, err)
	}
	r2, _, _ := s.Get("web")
	if r2 != r {
		t.Error("an unchanged record is decoded again")
	}
	// Deep things in it are removed too, and links are not followed.
	dir := filepath.Join(s.Path(), SandboxesDir, "web")
	canary := filepath.Join(t.TempDir(), "canary")
	must(t, os.WriteFile(canary, []byte("alive"), 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "logs", "a", "b"), 0o700))
	must(t, os.Symlink(filepath.Dir(canary), filepath.Join(dir, "logs", "link")))
	must(t, s.Remove("web"))
	must(t, s.Remove("web"))
	if _, err := os.Stat(canary); err != nil {
		t.Errorf("removal followed a link: %v", err)
	}
	if err := s.Put(r); err == nil {
		t.Error("a late writer brought a removed sandbox back")
	}
	if left, err := os.ReadDir(filepath.Join(s.Path(), TrashDir)); err != nil || len(left) > 0 {
		t.Errorf("trash: %v %v", left, err)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "-rf", "A", "a_b", strings.Repeat("a", 64), "a\x00"} {
		if s.Claim(bad) == nil || s.Remove(bad) == nil {
			t.Errorf("name %q is accepted", bad)
		}
		if _, err := s.Dir(bad); err == nil {
			t.Errorf("name %q is opened", bad)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a killed daemon left of its writes goes away, wherever it was writing; a
// program that leaves a request now keeps its own.
func TestSweepTemps(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	put(t, s, sample("web"))
	tmp := atomicfile.TempPrefix + "0"
	for _, p := range []string{tmp, "sandboxes/web/" + tmp, "requests/" + tmp, "requests/" + tmp + "dead"} {
		must(t, os.WriteFile(filepath.Join(s.Path(), p), nil, 0o600))
	}
	writer, err := os.Open(filepath.Join(s.Path(), "requests", tmp))
	must(t, err)
	defer writer.Close()
	must(t, unix.Flock(int(writer.Fd()), unix.LOCK_EX)) // as the atomic writer does
	must(t, os.MkdirAll(filepath.Join(s.Path(), "sandboxes/Not.A.Name"), 0o700))
	busy, err := s.SweepTemps()
	must(t, err)
	if busy != 0 { // nobody asks for those of the requests
		t.Errorf("%d are being written", busy)
	}
	var left []string
	must(t, filepath.WalkDir(s.Path(), func(p string, _ fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(p), atomicfile.TempPrefix) {
			left = append(left, strings.TrimPrefix(p, s.Path()+"/"))
		}
		return err
	}))
	if want := []string{"requests/" + tmp}; !slices.Equal(left, want) {
		t.Errorf("left are %v, expected %v", left, want)
	}
	if rec, _, err := s.Get("web"); rec == nil || err != nil {
		t.Errorf("the record: %v, %v", rec, err)
	}
}

func TestStoreRefusesShared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o777))
	if _, err := OpenStore(dir); err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("%v", err)
	}
	if _, err := OpenStoreReadOnly(filepath.Join(dir, "none")); !errors.Is(err, ErrNoState) {
		t.Errorf("%v, expected ErrNoState", err)
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	must(t, s.Lock())
	other, err := OpenStore(s.Path())
	must(t, err)
	defer other.Close()
	err = other.Lock()
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("%v, expected ErrLocked with our pid", err)
	}
}

// A lock that outlives its daemon, because a child that it was starting has it
// for a moment, is waited for; that of a live one is not.
func TestLockOutlives(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	dead := exec.Command("true")
	must(t, dead.Run())
	lock := func(pid int) *os.File {
		must(t, os.WriteFile(filepath.Join(s.Path(), lockFile), fmt.Append(nil, pid), 0o600))
		f, err := os.Open(s.Path())
		must(t, err)
		must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		return f
	}
	f := lock(os.Getpid())
	began := time.Now()
	if err := s.Lock(); !errors.Is(err, ErrLocked) || time.Since(began) >= lockPatience {
		t.Errorf("%v after %s, expected ErrLocked at once", err, time.Since(began))
	}
	must(t, f.Close())
	f = lock(dead.Process.Pid)
	released := make(chan error)
	time.AfterFunc(200*time.Millisecond, func() { released <- f.Close() })
	err := s.Lock()
	must(t, errors.Join(<-released, err))
}

// Readers see a whole record, always.
func TestConcurrentReaders(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	put(t, s, sample("web"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	errs := make(chan error, 4)
	for range 4 {
		go func() {
			reader, err := OpenStoreReadOnly(s.Path())
			if err != nil {
				errs <- err
				return
			}
			defer reader.Close()
			for ctx.Err() == nil {
				if r, h, err := reader.Get("web"); err != nil || h != nil || r == nil {
					errs <- fmt.Errorf("%v %v %v", r, h, err)
					return
				}
			}
			errs <- nil
		}()
	}
	for i := 0; ctx.Err() == nil; i++ {
		r := sample("web")
		r.Attempt = int64(i)
		r.SourceFile = strings.Repeat("x", i%4000)
		must(t, s.Put(r))
	}
	for range 4 {
		must(t, <-errs)
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := sample(rapid.StringMatching(`[a-z]([a-z0-9-]{0,20}[a-z0-9])?`).Draw(t, "name"))
		r.Attempt = rapid.Int64Min(0).Draw(t, "attempt")
		r.SourceFile = rapid.String().Draw(t, "file")
		r.Sentry.PID = rapid.IntRange(2, 1<<22).Draw(t, "pid")
		b, err := EncodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeRecord(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := EncodeRecord(back)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%v\n%s\n%s", err, b, again)
		}
	})
}

func TestExitRecord(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status uint32
		want   Exit
	}{
		{0, Exit{Known: true, Reason: ReasonCompleted}},
		{0, Exit{Known: true, Reason: ReasonCompleted, HostSignaled: true}},
		{7 << 8, Exit{Known: true, Code: 7, Reason: ReasonError, Message: "exit code 7"}},
		{9, Exit{Known: true, Code: 137, Signal: 9, Reason: ReasonSignaled, Message: "ended by SIGKILL"}},
		{11 | 0x80, Exit{Known: true, Code: 139, Signal: 11, Reason: ReasonSignaled, Message: "ended by SIGSEGV"}},
	} {
		b, err := EncodeExit(ExitRecord{UID: "u", Attempt: 2, Status: c.status, HostSignaled: c.want.HostSignaled})
		must(t, err)
		x, err := decodeExit(b, "u", 2)
		if err != nil || x == nil || *x != c.want {
			t.Errorf("status %#x: %+v %v, expected %+v", c.status, x, err, c.want)
		}
		if x, err := decodeExit(b, "u", 3); x != nil || err != nil {
			t.Errorf("another attempt's: %+v %v", x, err)
		}
		for container, of := range map[string]bool{AppName: true, "sidecar": false} {
			b, err := EncodeExit(ExitRecord{UID: "u", Attempt: 2, Container: container, Status: c.status, HostSignaled: c.want.HostSignaled})
			must(t, err)
			if x, err := decodeExit(b, "u", 2); err != nil || (x != nil) != of || of && *x != c.want {
				t.Errorf("of container %s: %+v %v", container, x, err)
			}
		}
		for n := range b[:len(b)-1] {
			if x, _ := decodeExit(b[:n], "u", 2); x != nil {
				t.Fatalf("cut to %d bytes it is taken for whole: %+v", n, x)
			}
		}
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	restart := Request{Kind: RequestRestart, Name: "web", Token: "1"}
	must(t, s.PutRequest(restart))
	must(t, s.PutRequest(Request{Kind: RequestApprove, Token: "2", Names: []string{"a", "b"}}))
	must(t, os.WriteFile(filepath.Join(s.RequestsDir(), "junk.json"), []byte("{"), 0o600))
	must(t, os.WriteFile(filepath.Join(s.RequestsDir(), "restart.other.json"), []byte(`{"kind":"restart","name":"web","token":"x"}`), 0o600))
	rs, err := s.Requests()
	if err != nil || len(rs) != 2 || rs[0].Kind != RequestApprove || rs[1].Token != "1" {
		t.Fatalf("%+v %v", rs, err)
	}
	// A newer request is not dropped with the older.
	newer := restart
	newer.Token = "3"
	must(t, s.PutRequest(newer))
	must(t, s.DropRequest(restart))
	if rs, _ = s.Requests(); len(rs) != 2 {
		t.Errorf("the newer request is gone: %+v", rs)
	}
	must(t, s.DropRequest(newer))
	must(t, s.DropRequest(newer))
	if rs, _ = s.Requests(); len(rs) != 1 {
		t.Errorf("%+v", rs)
	}
	for _, bad := range []Request{{Kind: "x"}, {Kind: RequestRestart, Name: "../x"}, {Kind: RequestApprove, Name: "x"}} {
		if s.PutRequest(bad) == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

func TestJournal(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	j, err := s.OpenJournal()
	must(t, err)
	r := s.ReadEvents()
	defer r.Close()
	var got []string
	next := func() {
		t.Helper()
		must(t, r.Next(func(e Event) error {
			got = append(got, e.Reason)
			return nil
		}))
	}
	must(t, j.Append(Event{Reason: "One", Type: EventNormal}))
	next()
	must(t, j.Append(Event{Reason: "Two"}))
	next()
	// A line torn by a crash is passed over and swallows no other.
	must(t, j.Close())
	f, err := os.OpenFile(filepath.Join(s.Path(), journalFile), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString(`{"reason":"Torn`)
	must(t, err)
	must(t, f.Close())
	j, err = s.OpenJournal()
	must(t, err)
	defer j.Close()
	must(t, j.Append(Event{Reason: "Three"}))
	next()
	// Rotated away under the reader.
	must(t, j.rotate())
	must(t, j.Append(Event{Reason: "Four"}))
	next()
	if fmt.Sprint(got) != "[One Two Three Four]" {
		t.Errorf("read %v", got)
	}
	var all []string
	fresh := s.ReadEvents()
	defer fresh.Close()
	must(t, fresh.Next(func(e Event) error {
		all = append(all, e.Reason)
		return nil
	}))
	if fmt.Sprint(all) != "[One Two Three Four]" {
		t.Errorf("read anew %v", all)
	}
}

func BenchmarkPut(b *testing.B) {
	s, err := OpenStore(filepath.Join(b.TempDir(), "state"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	r := sample("web")
	if err := s.Claim("web"); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.Put(r); err != nil {
			b.Fatal(err)
		}
	}
}

// A request that replaces another in the moment in which that is dropped stays.
func TestDropRequestLeavesNewer(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for i := range 50 {
		old := Request{Kind: RequestRestart, Name: "web", Token: fmt.Sprintf("old-%d", i)}
		next := Request{Kind: RequestRestart, Name: "web", Token: fmt.Sprintf("new-%d", i)}
		if err := s.PutRequest(old); err != nil {
			t.Fatal(err)
		}
		put := make(chan error, 1)
		go func() { put <- s.PutRequest(next) }()
		for {
			if err := s.DropRequest(old); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-put:
				if err != nil {
					t.Fatal(err)
				}
				got, err := s.Requests()
				if err != nil || len(got) != 1 || got[0].Token != next.Token {
					t.Fatalf("round %d: %+v, %v", i, got, err)
				}
			default:
				continue
			}
			break
		}
	}
}

// A request is withdrawn also while somebody leaves another one: its author
// reckons with its being gone.
func TestWithdrawRequest(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	r := Request{Kind: RequestRepair, Name: "web", Token: "1", End: true}
	must(t, s.PutRequest(r))
	dir, err := s.requests()
	must(t, err)
	must(t, dir.Lock(0))
	// Who drops what was carried out does not wait.
	must(t, s.DropRequest(r))
	if left, err := s.Requests(); err != nil || len(left) != 1 {
		t.Fatalf("%v %v", left, err)
	}
	done := make(chan error, 1)
	go func() { done <- s.WithdrawRequest(r) }()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	dir.Close()
	must(t, <-done)
	if left, err := s.Requests(); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
	// A newer one stays.
	must(t, s.PutRequest(Request{Kind: RequestRepair, Name: "web", Token: "2"}))
	must(t, s.WithdrawRequest(r))
	if left, err := s.Requests(); err != nil || len(left) != 1 {
		t.Errorf("left: %v %v", left, err)
	}
}
