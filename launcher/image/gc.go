// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/atomicfile"
)

// keepLayers is how long the layers of a pull that failed are kept for the next try.
const keepLayers = 24 * time.Hour

// sweep removes what processes that were killed have left. It takes nothing from those
// that live: they hold locks.
func (s *Store) sweep() error {
	var errs []error
	for _, d := range []*os.File{s.dir, s.refs, s.pulls} {
		_, err := in(d).SweepTemps()
		errs = append(errs, err)
	}
	trees, metas, err := s.names()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for hex := range trees {
		if !metas[hex] {
			errs = append(errs, s.dropTree(hex))
		}
	}
	_, err = s.sweepPulls(context.Background(), keepLayers) //nolint:forbidigo // it waits for nobody
	return errors.Join(append(errs, err)...)
}

// names are the images of which there is a tree, and of which there is the rest.
func (s *Store) names() (trees, metas map[string]bool, err error) {
	all, err := in(s.dir).Names()
	if err != nil {
		return nil, nil, fmt.Errorf("list images: %w", err)
	}
	trees, metas = map[string]bool{}, map[string]bool{}
	for _, n := range all {
		if hex, ok := strings.CutSuffix(n, treeSuffix); ok {
			trees[hex] = true
		} else if hex, ok := strings.CutSuffix(n, metaSuffix); ok {
			metas[hex] = true
		}
	}
	return trees, metas, nil
}

// dropTree removes the tree of an image that was not finished, or whose removal was not.
func (s *Store) dropTree(hex string) error {
	f, err := s.openTree(hex, unix.O_RDONLY)
	if err != nil {
		return ignoreMissing(err)
	}
	defer f.Close()
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil // it is being finished
	}
	if _, err := s.info(hex); !errors.Is(err, ErrNotFound) {
		return nil // it has been finished
	}
	return atomicfile.Remove(s.dir, hex+treeSuffix)
}

// sweepPulls removes what pulls that failed have left, if it is old enough, and says how
// much that was.
func (s *Store) sweepPulls(ctx context.Context, age time.Duration) (freed int64, err error) {
	names, err := in(s.pulls).Names()
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, n := range names {
		st, err := in(s.pulls).Stat(n)
		// There is no next try of a pull that was killed when its image was there, unless
		// the image is damaged.
		if err != nil || age > 0 && time.Since(time.Unix(st.Mtim.Unix())) < age && !s.Has("sha256:"+n) {
			continue
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR { // nothing of ours is that
			errs = append(errs, RemoveFile(s.pulls, n))
			continue
		}
		p, err := s.claim(ctx, n, nil)
		if errors.Is(err, ErrInUse) {
			continue
		}
		if err == nil {
			freed += p.Kept()
			err = p.End(false)
		}
		errs = append(errs, err)
	}
	return freed, errors.Join(errs...)
}

// Entry is an image in the store, and the references that mean it.
type Entry struct {
	Info
	Refs []string `json:"refs,omitempty"`
	// Problem says why it can't be used.
	Problem string `json:"problem,omitempty"`
}

// List lists the images, in the order of their references.
func (s *Store) List() ([]Entry, error) {
	_, metas, err := s.names()
	if err != nil {
		return nil, err
	}
	tags, err := s.Tags()
	if err != nil {
		return nil, err
	}
	var out []Entry
	for hex := range metas {
		e := Entry{Info: Info{Digest: "sha256:" + hex}}
		img, err := s.Find(e.Digest)
		switch {
		case errors.Is(err, ErrNotFound) && !s.has(hex):
			continue // it has just been removed
		case err != nil:
			e.Problem = err.Error()
		default:
			e.Info = img.Info
			img.Close()
		}
		for _, t := range tags {
			if t.Digest == e.Digest {
				e.Refs = append(e.Refs, t.Ref)
			}
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return strings.Compare(strings.Join(a.Refs, " ")+" "+a.Digest, strings.Join(b.Refs, " ")+" "+b.Digest)
	})
	return out, nil
}

func (s *Store) has(hex string) bool {
	_, err := in(s.dir).Stat(hex + metaSuffix)
	return err == nil
}

// Tags are the references that were resolved, in their order. What can't be read is
// passed over: it is resolved again.
func (s *Store) Tags() ([]Tag, error) {
	names, err := in(s.refs).Names()
	if err != nil {
		return nil, fmt.Errorf("list references: %w", err)
	}
	var out []Tag
	for _, n := range names {
		b, err := readFile(s.refs, n)
		if err != nil {
			continue
		}
		if t, err := decodeTag(n, b); err == nil {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b Tag) int { return strings.Compare(a.Ref, b.Ref) })
	return out, nil
}

// InUse says which digests the records name. It is called when nobody can take one of
// the images that may be removed.
type InUse func() (map[string]bool, error)

// Remove removes one image, and the references to it: ErrInUse if somebody has it.
func (s *Store) Remove(ctx context.Context, digest string, inUse InUse) error {
	hex, ok := plain(digest)
	if !ok || !s.has(hex) {
		return fmt.Errorf("%w: %s", ErrNotFound, digest)
	}
	removed, err := s.remove(ctx, []string{hex}, inUse)
	if err == nil && len(removed) == 0 {
		err = fmt.Errorf("%w: %s", ErrInUse, digest)
	}
	return err
}

// Untag removes a reference. The image stays.
func (s *Store) Untag(ref string) error { return atomicfile.Remove(s.refs, tagFile(ref)) }

// Prune removes the images that no record names, nobody has and keep does not want, and
// what pulls that failed have left. It says which, and how many bytes that were.
func (s *Store) Prune(ctx context.Context, keep func(*Entry) bool, inUse InUse) (removed []string, freed int64, err error) {
	freed, err = s.sweepPulls(ctx, 0)
	if err != nil {
		return nil, freed, err
	}
	entries, err := s.List()
	if err != nil {
		return nil, freed, err
	}
	var all []string
	before := map[string]int64{}
	for i := range entries {
		if hex, ok := plain(entries[i].Digest); ok && !keep(&entries[i]) {
			all = append(all, hex)
			before[entries[i].Digest] = s.taken(hex)
		}
	}
	removed, err = s.remove(ctx, all, inUse)
	for _, digest := range removed {
		freed += before[digest]
	}
	return removed, freed, err
}

// taken is how much of the disk the tree of an image takes.
func (s *Store) taken(hex string) int64 {
	st, err := in(s.dir).Stat(hex + treeSuffix)
	if err != nil {
		return 0
	}
	return st.Blocks * 512
}

// doomed is an image that nobody but its remover can take.
type doomed struct {
	hex   string
	claim *Claim   // nil if the disk has no room for it
	tree  *os.File // nil if there is none
}

// close gives up what locks the image.
func (d doomed) close() error {
	if d.tree != nil {
		d.tree.Close()
	}
	if d.claim == nil {
		return nil
	}
	return d.claim.End(true)
}

// remove removes those of the images that nobody uses.
//
// Each is locked before the records are asked: a launcher has an image from before it
// writes its record until after that, so that it is seen in one place or the other.
func (s *Store) remove(ctx context.Context, all []string, inUse InUse) (removed []string, err error) {
	var mine []doomed
	defer func() {
		for _, d := range mine {
			err = errors.Join(err, d.close())
		}
	}()
	for _, hex := range all {
		d, err := s.doom(ctx, hex)
		if errors.Is(err, ErrInUse) {
			continue
		}
		if err != nil {
			return nil, err
		}
		mine = append(mine, d)
	}
	used, err := inUse()
	if err != nil {
		return nil, fmt.Errorf("find out which images are in use: %w", err)
	}
	// Large files take their time to be removed: who needs another image must not wait for that.
	var unused []doomed
	for _, d := range mine {
		if used["sha256:"+d.hex] {
			err = errors.Join(err, d.close())
		} else {
			unused = append(unused, d)
		}
	}
	if mine = unused; err != nil {
		return nil, err
	}
	tags, err := s.Tags()
	if err != nil {
		return nil, err
	}
	for _, d := range mine {
		if err := s.erase(d.hex, tags); err != nil {
			return removed, err
		}
		removed = append(removed, "sha256:"+d.hex)
	}
	return removed, nil
}

// doom locks an image.
func (s *Store) doom(ctx context.Context, hex string) (d doomed, err error) {
	d.hex = hex
	// What makes room must not need any. Who fetches this image needs the same directory:
	// nobody does on such a disk. Should somebody begin now, the image is fetched again.
	if d.claim, err = s.claim(ctx, hex, nil); err != nil && !errors.Is(err, ErrDiskFull) {
		return d, err
	}
	if d.tree, err = s.openTree(hex, unix.O_RDONLY); errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		// A daemon that decides something has it for a moment, again and again.
		err = flockSoon(d.tree, unix.LOCK_EX, lockPatience)
	}
	if err != nil {
		if errors.Is(err, ErrBusy) {
			err = ErrInUse
		}
		return d, errors.Join(err, d.close())
	}
	return d, nil
}

// erase removes an image. References to it come first: each means an image that is there.
func (s *Store) erase(hex string, tags []Tag) error {
	for _, t := range tags {
		if t.Digest == "sha256:"+hex {
			if err := s.Untag(t.Ref); err != nil {
				return err
			}
		}
	}
	// What is left if this is the last that happens, sweep removes.
	if err := atomicfile.Remove(s.dir, hex+metaSuffix); err != nil {
		return err
	}
	return atomicfile.Remove(s.dir, hex+treeSuffix)
}

// Leftovers counts what is in the store and is not an image.
type Leftovers struct {
	// Pulls are directories with layers of pulls that are not complete, Bytes their size.
	Pulls int
	Bytes int64
	// Trees are files of images that were not finished.
	Trees int
	// Missing are images without their file.
	Missing []string
}

// Leftovers looks for them.
func (s *Store) Leftovers() (l Leftovers, err error) {
	trees, metas, err := s.names()
	if err != nil {
		return l, err
	}
	for hex := range trees {
		if !metas[hex] {
			l.Trees++
		}
	}
	for hex := range metas {
		if !trees[hex] {
			l.Missing = append(l.Missing, "sha256:"+hex)
		}
	}
	slices.Sort(l.Missing)
	names, err := in(s.pulls).Names()
	if err != nil {
		return l, err
	}
	for _, n := range names {
		dir, err := openDir(int(s.pulls.Fd()), n, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			continue
		}
		l.Pulls++
		l.Bytes += (&Claim{Dir: dir}).Kept()
		dir.Close()
	}
	return l, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
