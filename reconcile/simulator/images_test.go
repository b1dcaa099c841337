// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/reconcile"
)

// images are the registry, the store of images, and the pulls between them. The store
// survives everything: its own crashes are tested where it is (TestCrashImages).
type images struct {
	n int
	// tags are what references mean to the registry now, which has every image that it
	// ever had, by digest.
	tags map[string]string
	// known are what references meant when they were resolved, stored the images that
	// are there.
	known  map[string]string
	stored map[string]bool
	// pulls are the processes that fetch.
	pulls []*pull
	// calm says that every pull succeeds.
	calm bool
}

// pull is a process that fetches an image.
type pull struct {
	ref       string
	ctx       context.Context
	cancelled time.Time
}

func newImages() images {
	return images{tags: map[string]string{}, known: map[string]string{}, stored: map[string]bool{}}
}

// move has a reference mean a new image.
func (i *images) move(ref string) {
	i.n++
	i.tags[ref] = fmt.Sprintf("sha256:%064x", i.n)
}

// means is what a reference means to the registry.
func (i *images) means(ref string) string {
	if _, digest, pinned := strings.Cut(ref, "@"); pinned {
		return digest
	}
	if i.tags[ref] == "" {
		i.move(ref)
	}
	return i.tags[ref]
}

// find looks into the store: it is view.View.Image.
func (i *images) find(ref string) string {
	digest := ref
	if imageref.CheckDigest(ref) != nil {
		if digest = i.known[ref]; digest == "" {
			_, digest, _ = strings.Cut(ref, "@")
		}
	}
	if !i.stored[digest] {
		return ""
	}
	return digest
}

// prune makes the calls of `image prune --all`: an image that no record names goes, and
// none at all while there are records that can't be read.
func (h *host) prune() {
	if len(h.backups) > 0 {
		return
	}
	used := map[string]bool{}
	for _, name := range manifestNames {
		if rec := h.onRecord(name); rec != nil && rec.App().Image != nil {
			used[rec.App().Image.Digest] = true
		}
	}
	for digest := range h.images.stored {
		if !used[digest] {
			delete(h.images.stored, digest)
			h.check.pruned[digest] = true
		}
	}
}

// imageRoot is the root of a manifest, one of two images.
func imageRoot(variant uint32) string {
	policy := "IfNotPresent"
	if variant>>11%3 == 0 {
		policy = "Always"
	}
	return fmt.Sprintf("{image: {ref: 'registry.example/%c:1', pullPolicy: %s}}", 'a'+rune(variant>>10%2), policy)
}

// puller is the reconcile.Puller of a daemon.
type puller struct {
	h *host
	p *program
}

// outcome is how a pull ends.
type outcome int

const (
	fetched outcome = iota
	lost            // it is pruned as soon as it is there
	unreachable
	notFound
	hanging // until it is cancelled
)

// outcomes are how often each comes.
var outcomes = []outcome{fetched, fetched, fetched, fetched, fetched, lost, unreachable, unreachable, notFound, hanging}

// Pull implements reconcile.Puller.
func (l *puller) Pull(ctx context.Context, r imageref.PullRequest, _ func(operation.PullStep)) (string, error) {
	h, t := l.h, newTask(l.p, "pull "+r.Ref)
	h.park(t, nil, time.Time{})
	defer h.runs(l.p.main)
	if t.p.dead {
		return "", errDead
	}
	p := &pull{ref: r.Ref, ctx: ctx}
	h.images.pulls = append(h.images.pulls, p)
	defer func() {
		h.images.pulls = slices.DeleteFunc(h.images.pulls, func(q *pull) bool { return q == p })
	}()
	h.stats.Pulls++
	how, lasts := outcomes[h.rng.IntN(len(outcomes))], time.Duration(h.rng.IntN(40))*100*time.Millisecond
	if h.images.calm {
		how = fetched
	}
	deadline := time.Now().Add(lasts)
	if how == hanging {
		deadline = time.Time{}
	}
	obeys := !h.is("pull-not-cancelled")
	h.park(t, func() bool { return obeys && ctx.Err() != nil }, deadline)
	digest := h.images.means(r.Ref)
	if d := h.images.find(r.Ref); d != "" && r.Policy != imageref.PullAlways {
		digest = d
	}
	switch {
	case t.p.dead:
		// The process of the pull learns of it a moment later, and may be done by then.
		if how == fetched && h.rng.IntN(2) == 0 {
			h.images.known[r.Ref], h.images.stored[digest] = digest, true
		}
		return "", errDead
	case obeys && ctx.Err() != nil:
		h.stats.PullsCancelled++
		return "", context.Cause(ctx)
	case how == unreachable:
		h.stats.PullFailures++
		return "", errors.New("the registry can't be reached")
	case how == notFound:
		h.stats.PullFailures++
		return "", operation.ErrImageNotFound
	}
	h.images.known[r.Ref], h.images.stored[digest] = digest, how == fetched
	h.note("%s: %s", t.name, digest)
	return digest, nil
}

// openImage is what the launcher takes from the store for a start.
func (o *op) openImage(rec *actual.Record) error {
	switch img := rec.App().Image; {
	case img == nil && !o.h.is("image-not-on-record"):
		return nil
	case img != nil && o.h.is("image-by-reference"):
		o.image = o.h.images.find(img.Ref)
	case img != nil:
		o.image = img.Digest
	}
	if o.image != "" && !o.h.images.stored[o.image] {
		return errors.New("the image is not in the store")
	}
	return nil
}

// ran is what a sandbox was started from last.
type ran struct{ uid, hash, token, image string }

// imageStarted checks what an application is started from: the image on record, which
// is the one of the start before unless the spec is another one, or somebody has asked.
func (c *checker) imageStarted(h *host, p *proc) {
	rec := h.onRecord(p.name)
	if rec == nil {
		return
	}
	if img := rec.App().Image; img != nil && img.Digest != p.image {
		h.breach("%s runs %q, and %q is on record", p.name, p.image, img.Digest)
	}
	last, now := c.ran[p.name], ran{p.uid, p.hash, rec.RestartToken, p.image}
	c.ran[p.name] = now
	if last.uid != now.uid || last.hash != now.hash || last.image == now.image {
		return
	}
	always := c.wished(p.name, func(w *wish) bool {
		e := w.entry()
		return e == nil || e.Sandbox.Spec.Root.Image == nil || e.Sandbox.Spec.Root.Image.PullPolicy == imageref.PullAlways
	})
	if !always || last.token == now.token {
		h.breach("%s was started from %s and is started again from %s, and nobody has asked", p.name, last.image, now.image)
	}
}

// otherSpec forgets what a sandbox ran when its record is of something else.
func (c *checker) otherSpec(rec *actual.Record) {
	if last := c.ran[rec.Name]; last.uid != rec.UID || last.hash != rec.SpecHash {
		delete(c.ran, rec.Name)
	}
}

// imageMissing says whether a start was decided on, or a stop for it, without its image.
func (c *checker) imageMissing(h *host, e *desired.Entry, a *reconcile.Action) bool {
	return e != nil && e.Sandbox.Spec.Root.Image != nil && !h.images.stored[a.Image] && !c.pruned[a.Image]
}

// neededPulls checks that nothing is fetched that nobody wants.
func (c *checker) neededPulls(h *host, in *reconcile.Input) {
	if !in.Desired.Complete || len(in.Operations) > 0 {
		return
	}
	for _, p := range h.images.pulls {
		name, _, _ := strings.Cut(p.ref, ":")
		wanted := slices.ContainsFunc(in.Desired.Entries, func(e desired.Entry) bool {
			img := e.Sandbox.Spec.Root.Image
			return img != nil && strings.HasPrefix(img.Reference(), name)
		})
		if !wanted && p.ctx.Err() == nil {
			h.breach("I4: %s is fetched, and no manifest names it", p.ref)
		}
	}
}

// pullsEnd checks that what is cancelled ends.
func (c *checker) pullsEnd(h *host) {
	for _, p := range h.images.pulls {
		switch {
		case p.ctx.Err() == nil:
		case p.cancelled.IsZero():
			p.cancelled = time.Now()
		case time.Since(p.cancelled) > 10*time.Second:
			h.breach("I4: the pull of %s was cancelled and goes on", p.ref)
		}
	}
}
