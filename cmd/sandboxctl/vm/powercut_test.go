// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPowerCut cuts the power at random moments while manifests change: CUTS of
// them (3), SEED for the same changes and the same losses once more. State and
// manifests are on disks with a write cache that loses what was not flushed.
//
// After a boot that is let alone, all is as the manifests directory says, which
// says what was acknowledged; no record was lost or damaged; no job that was seen
// to be completed was started again; and nothing is left over. Some boots are not
// let alone: the power is cut while they recover.
func TestPowerCut(t *testing.T) {
	requireImage(t)
	t.Parallel()
	seed := number(t, "SEED", int(time.Now().UnixNano()%1_000_000))
	cuts := number(t, "CUTS", 3)
	t.Logf("SEED=%d CUTS=%d", seed, cuts)
	h := newPowerHost(t, uint64(seed))
	for i := range cuts {
		if i == 0 || h.random.IntN(3) > 0 {
			must(t, h.boot())
			h.settle()
			h.changeUntilCut()
		} else {
			// Also while the filesystems and the records are being recovered.
			h.powerOn()
			h.cutLater(40*time.Second, 100)
			if err := h.boot(); err != nil && !errors.Is(err, errSilent) {
				t.Fatal(err)
			}
			<-h.m.ended
			h.cut()
		}
		if t.Failed() {
			return
		}
	}
	must(t, h.boot())
	h.settle()
	h.removeAll()
	t.Logf("%d power cuts, %d writes kept and %d lost, %d changes acknowledged and %d cut off, %d jobs", cuts, h.kept, h.lost, h.acknowledged, h.cutOff, len(h.names)-len(services))
}

var services = []string{"alpha", "beta"}

// powerHost is a host and what it has promised.
type powerHost struct {
	t      *testing.T
	random *rand.Rand
	m      *machine
	// The two disks that lose what was not flushed, and one that does not,
	// for what applications say of their starts.
	state, manifests, witness *disk
	names                     map[string]*promise
	job                       int

	cuts, kept, lost, acknowledged, cutOff int
	// images of the disks at the last cut, to find out what went wrong.
	images map[string][]byte
}

// promise is what must be so after a power cut, for one name.
type promise struct {
	// texts are those that the manifest may have: the last one that was
	// acknowledged, and what was tried since. Empty is no manifest.
	texts map[string]bool
	// uid of its record, when it was seen to run or completed, and its manifest
	// has not been removed since.
	uid string
	// completed says that the host has said so; it had been started so often when
	// that was first looked at.
	completed           bool
	startsWhenCompleted int
	service             bool
}

func newPowerHost(t *testing.T, seed uint64) *powerHost {
	h := &powerHost{t: t, random: rand.New(rand.NewPCG(seed, 0)), names: map[string]*promise{}}
	h.state, h.manifests, h.witness = newDisk(t, 64<<20), newDisk(t, 64<<20), newDisk(t, 64<<20)
	h.witness.writeThrough = true
	h.images = map[string][]byte{}
	t.Cleanup(h.keepImages)
	return h
}

// mountOptions are those of ext4 that change what a power cut does to files: the
// usual ones, and those that do less for programs that do not sync.
var mountOptions = []string{"defaults", "noauto_da_alloc", "data=writeback,noauto_da_alloc", "data=journal", "commit=1", "delalloc,commit=60"}

// powerOn switches the host on if it is off.
func (h *powerHost) powerOn() {
	h.t.Helper()
	if h.m == nil {
		h.m = powerOn(h.t, h.state, h.manifests, h.witness)
	}
}

// boot mounts the filesystems and starts the daemon.
func (h *powerHost) boot() error {
	h.t.Helper()
	h.powerOn()
	options := mountOptions[h.random.IntN(len(mountOptions))]
	h.t.Logf("boot %d, mounted with %s", h.cuts+1, options)
	_, err := h.m.try(`set -e
mkdir -p /etc/sandboxctl/manifests /srv/sandboxctl/runs
mkdir -p -m 700 /var/lib/sandboxctl
mount -o `+options+` /dev/vdb /var/lib/sandboxctl
mount -o `+options+` /dev/vdc /etc/sandboxctl/manifests
mount -o sync /dev/vdd /srv/sandboxctl/runs
rmdir /var/lib/sandboxctl/lost+found /etc/sandboxctl/manifests/lost+found 2>/dev/null || :
cd /src/examples
install -m 644 policy.yaml /etc/sandboxctl/policy.yaml
install -m 644 systemd/sandboxctl.service /etc/systemd/system/sandboxctl.service
# How removals are guarded is tested elsewhere.
sed -i 's/sandboxctl daemon/& --allow-mass-delete/' /etc/systemd/system/sandboxctl.service
systemctl daemon-reload
systemctl start sandboxctl`, commandDeadline)
	return err
}

// fewWrites is how much longer than others a cut is waited for that counts writes:
// a host with nothing to do writes no more.
const fewWrites = 20 * time.Second

// cutLater has the power cut at a random moment: half of the times after some
// time, else after some writes and flushes of one of the disks.
func (h *powerHost) cutLater(most time.Duration, writes int) {
	h.t.Helper()
	after := time.After(time.Duration(h.random.Int64N(int64(most))))
	var now <-chan struct{}
	if d := []*disk{h.state, h.manifests, nil, nil}[h.random.IntN(4)]; d != nil {
		n := 1 + h.random.IntN(writes)
		h.t.Logf("the power will be cut after %d writes and flushes", n)
		now = d.cutAfter(n)
		after = time.After(most + fewWrites)
	}
	m := h.m
	go func() {
		select {
		case <-now:
			_ = m.cmd.Process.Kill()
		case <-after:
			_ = m.cmd.Process.Kill()
		case <-m.ended:
		}
	}()
}

// cut cuts the power now.
func (h *powerHost) cut() {
	h.t.Helper()
	h.m.powerOff()
	h.cuts++
	clear(h.images)
	for name, d := range map[string]*disk{"state": h.state, "manifests": h.manifests} {
		if <-d.served; d.err != nil && !errors.Is(d.err, errCut) && !errors.Is(d.err, io.EOF) && !errors.Is(d.err, io.ErrUnexpectedEOF) && !errors.Is(d.err, unix.ECONNRESET) && !errors.Is(d.err, unix.EPIPE) {
			h.t.Fatalf("the disk of the %s was not served: %v", name, d.err)
		}
		h.images[name+"-before"] = slices.Clone(d.seen)
		kept, lost := d.cut(h.random)
		h.images[name+"-after"] = slices.Clone(d.durable)
		h.kept, h.lost = h.kept+kept, h.lost+lost
		h.t.Logf("cut %d: the cache of the disk of the %s kept %d writes and lost %d", h.cuts, name, kept, lost)
	}
	<-h.witness.served
	h.m = nil
}

// keepImages writes the images of the last cut, before and after it, to
// SANDBOXCTL_BIN/powercut if the test has failed.
func (h *powerHost) keepImages() {
	if !h.t.Failed() {
		return
	}
	dir := filepath.Join(os.Getenv("SANDBOXCTL_BIN"), "powercut")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Error(err)
	}
	for name, image := range h.images {
		if err := os.WriteFile(filepath.Join(dir, name+".img"), image, 0o600); err != nil {
			h.t.Error(err)
		}
	}
	h.t.Logf("the images of the disks before and after the last cut are in %s", dir)
}

// changeUntilCut changes manifests and more, one after the other, until the
// power is cut at a random moment: after some changes, in the middle of one.
func (h *powerHost) changeUntilCut() {
	h.t.Helper()
	for n := h.random.IntN(12); ; n-- {
		if n == 0 {
			h.cutLater(4*time.Second, 60)
		}
		if err := h.change(); errors.Is(err, errSilent) {
			h.cutOff++
			break
		} else if err != nil {
			h.t.Fatalf("%s\n%v", h.m.explain(), err)
		}
		h.acknowledged++
		if err := h.observe(); errors.Is(err, errSilent) {
			break
		} else if err != nil {
			h.t.Fatal(err)
		}
	}
	h.cut()
}
