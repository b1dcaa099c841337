// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/client/protocol"
	"sandboxctl.dev/cmd/sandboxctl/oneoff"
	"sandboxctl.dev/desired"
)

// full are sandboxes of a daemon of which all turns are taken. It has no host: a request that reads
// manifests all the same panics.
func full(t *testing.T) *sandboxes {
	t.Helper()
	store, err := actual.OpenStore(filepath.Join(t.TempDir(), "state"))
	must(t, err)
	t.Cleanup(func() { store.Close() })
	self := process.Identity{PID: 7, StartTime: 1, BootID: "b"}
	b := &sandboxes{
		store: store, log: slog.New(slog.DiscardHandler), self: self, waits: newWaits(self),
		turns: make(chan struct{}, atOnce), runs: map[string]*run{},
	}
	for range atOnce {
		_, err := b.turn(t.Context())
		must(t, err)
	}
	return b
}

// nobody is an answer to a client that does not read.
func nobody(t *testing.T) *answer {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		ends[i], err = net.FileConn(f)
		f.Close()
		must(t, err)
		t.Cleanup(func() { ends[i].Close() })
	}
	return &answer{conn: ends[0].(*net.UnixConn)}
}

func command(op, name string) *protocol.Request {
	r := &protocol.Request{Op: op, Name: name, Command: &protocol.Command{Args: []string{"true"}}}
	if op == protocol.OpRun {
		r.Sandbox = &protocol.Sandbox{}
	}
	return r
}

// Who asks for a name has it in this daemon at once, and nothing of a sandbox that somebody else has
// made under it: they neither know of it nor execute anything in it.
func TestNameOfOthers(t *testing.T) {
	t.Parallel()
	b := full(t)
	member, ctx := &peer{uid: 4000}, t.Context()
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	ask := nobody(t)
	go func() { ended <- b.command(running, ctx, member, command(protocol.OpRun, "run-web"), ask) }()
	defer func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) || len(b.of(&peer{})) != 0 {
			t.Errorf("ended by %v", err)
		}
	}()
	until(t, "the name", func() bool { return b.of(member)["run-web"] != nil })

	b.waits.saw(pass(t, "run-web"))
	if list, err := b.list(ctx, member, ""); err != nil || len(list) != 0 {
		t.Errorf("it knows of %+v (%v)", list, err)
	}
	if err := b.command(ctx, ctx, member, command(protocol.OpExec, "run-web"), nobody(t)); err == nil || err.Error() != noSuch("run-web").Error() {
		t.Errorf("it executes: %v", err)
	}
}

// A user knows of a sandbox that this daemon has made for them, and not of one that had the name before.
func TestOwnSandboxes(t *testing.T) {
	t.Parallel()
	b := full(t)
	must(t, b.claim("run-mine", &run{uid: 4000, gone: make(chan struct{})}))
	mine, other, ofOld := oneoff.Client{PID: 8, UID: 4000}, oneoff.Client{PID: 8, UID: 4001}, b.self
	ofOld.StartTime++
	for what, c := range map[string]struct {
		daemon process.Identity
		client *oneoff.Client
		known  int
	}{
		"its own":                  {b.self, &mine, 1},
		"one of another user":      {b.self, &other, 0},
		"one of another daemon":    {ofOld, &mine, 0},
		"one of `sandboxctl run`":  {b.self, nil, 0},
		"one of another daemon's ": {ofOld, nil, 0},
	} {
		text, err := (&oneoff.Options{Name: "run-mine"}).ManifestFor(c.daemon, c.client)
		must(t, err)
		docs, problems := desired.Decode("run-mine.yaml", text)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		in, plan := pass(t)
		in.Desired.Entries = append(in.Desired.Entries, docs[0].Entry())
		b.waits.saw(in, plan)
		for uid, known := range map[uint32]int{4000: c.known, 4001: 0} {
			if list, err := b.list(t.Context(), &peer{uid: uid}, ""); err != nil || len(list) != known {
				t.Errorf("%s: user %d knows of %+v (%v)", what, uid, list, err)
			}
		}
	}
}

// What is not there is not looked for in all manifests: nothing of that would wait for a turn.
func TestExecNeedsNoTurn(t *testing.T) {
	t.Parallel()
	b := full(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := b.command(ctx, ctx, &peer{}, command(protocol.OpExec, "web"), nobody(t))
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Kind != protocol.KindNotFound {
		t.Errorf("%v", err)
	}
}
