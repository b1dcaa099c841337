// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/dirfd"
)

// Records of our archives, in global headers at their beginning and end: an archive that has
// the first and lacks the second was cut short.
const (
	beginsRecord = "SANDBOXCTL.volume"
	endsRecord   = "SANDBOXCTL.complete"

	xattrRecord = "SCHILY.xattr."
)

// Report says what a backup has.
type Report struct {
	Files int64
	// Skipped are sockets and devices, which no archive has.
	Skipped int64
	// Changed are files that were written meanwhile.
	Changed int64
}

// Backup writes a volume as a tar, with owners, modes, times, extended attributes, hard links
// and holes. A volume that is in use is read as it is at each moment: the archive is like the
// disk after a power cut, and files that shrink meanwhile have zeros at their end.
func (s *Store) Backup(ctx context.Context, name string, w io.Writer) (Report, error) {
	v, err := s.Find(ctx, name, unix.LOCK_SH)
	if err != nil {
		return Report{}, err
	}
	defer v.Close()
	data, err := v.Data(unix.O_RDONLY)
	if err != nil {
		return Report{}, err
	}
	defer data.Close()
	w = whileWanted{ctx: ctx, w: w}
	b := &backup{w: w, tar: tar.NewWriter(w), links: map[uint64]string{}}
	if err := b.global(beginsRecord, name); err != nil {
		return b.Report, err
	}
	add := func(e *entry) error {
		return crashpoint.Do(crashpoint.BackupEntry, func() error { return b.add(e) })
	}
	if err := walk(ctx, data, add); err != nil {
		return b.Report, err
	}
	if err := b.global(endsRecord, strconv.FormatInt(b.Files, 10)); err != nil {
		return b.Report, err
	}
	return b.Report, b.tar.Close()
}

type backup struct {
	Report
	w   io.Writer
	tar *tar.Writer
	// links are the first names of files that have several.
	links map[uint64]string
}

func (b *backup) global(key, value string) error {
	return b.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "sandboxctl", PAXRecords: map[string]string{key: value}, Format: tar.FormatPAX})
}

// add adds what a walk came to. What vanishes meanwhile, or becomes something else, is left
// out.
func (b *backup) add(e *entry) error {
	err := b.addEntry(e)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return nil
	case errors.Is(err, unix.EXDEV): // a file that the host has mounted there
		b.Skipped++
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", shown(e.path), err)
	}
	return nil
}

func (b *backup) addEntry(e *entry) error {
	h := &tar.Header{
		Name: "./" + e.path, Mode: int64(e.stat.Mode & 0o7777), Uid: int(e.stat.Uid), Gid: int(e.stat.Gid),
		ModTime: time.Unix(e.stat.Mtim.Unix()), Format: tar.FormatPAX, PAXRecords: map[string]string{},
	}
	kind := e.stat.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && e.stat.Nlink > 1 {
		if first, ok := b.links[e.stat.Ino]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return b.header(h)
		}
	}
	switch kind {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(h.Name, "/.")+"/"
		if e.path == "." {
			h.Name = "./"
		}
		if err := addXattrs(h, e.open); err != nil {
			return err
		}
	case unix.S_IFREG:
		return b.file(e, h)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(e.dir.Fd()), e.name, target)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(target[:n])
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		b.Skipped++
		return nil
	}
	if err := b.header(h); err != nil {
		return err
	}
	b.remember(e)
	return nil
}

func (b *backup) header(h *tar.Header) error {
	b.Files++
	return b.tar.WriteHeader(h)
}

func (b *backup) remember(e *entry) {
	if e.stat.Mode&unix.S_IFMT != unix.S_IFDIR && e.stat.Nlink > 1 && len(b.links) < mostLinked {
		b.links[e.stat.Ino] = "./" + e.path
	}
}

// file adds a regular file. It is opened without waiting, and looked at again: somebody may
// have put a fifo in its place.
func (b *backup) file(e *entry, h *tar.Header) error {
	f, err := dirfd.Open(int(e.dir.Fd()), e.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOATIME, in)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Ino != e.stat.Ino || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.ENOENT // it was replaced
	}
	if err := addXattrs(h, f); err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, st.Size
	parts := []segment{{0, st.Size}}
	if st.Blocks*512 < st.Size {
		parts = segments(f, st.Size)
	}
	var out io.Writer = b.tar
	var padding []byte
	if st.Blocks*512 < st.Size && (len(parts) != 1 || parts[0].size != st.Size) {
		if out, padding, err = b.sparse(h, parts); err != nil {
			return err
		}
		b.Files++
	} else if err := b.header(h); err != nil {
		return err
	}
	b.remember(e)
	for _, p := range parts {
		if err := b.copy(out, f, p); err != nil {
			return err
		}
	}
	_, err = out.Write(padding)
	return err
}

// copy writes a part of a file, with zeros where it has become shorter.
func (b *backup) copy(w io.Writer, f *os.File, p segment) error {
	n, err := io.Copy(w, io.NewSectionReader(f, p.at, p.size))
	if err != nil {
		return err
	}
	if n < p.size {
		b.Changed++
		_, err = io.CopyN(w, zeros{}, p.size-n)
	}
	return err
}

// whileWanted reads and writes until its context ends: one file may take hours.
type whileWanted struct {
	ctx context.Context //nolint:containedctx // of the one backup or restore that it is for
	r   io.Reader
	w   io.Writer
}

func (w whileWanted) Read(b []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.r.Read(b)
}

func (w whileWanted) Write(b []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.w.Write(b)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// segment is a part of a file that is no hole.
type segment struct{ at, size int64 }

// mostSegments bounds how many parts of a file an archive lists: readers, ours too, refuse a
// list of more than a megabyte. Two numbers of 19 digits have room for each.
const mostSegments = 25_000

// segments are the parts of a file that are no holes.
func segments(f *os.File, size int64) (out []segment) {
	for at := int64(0); at < size; {
		if len(out) == 4*mostSegments {
			out = fewer(out)
		}
		begin, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole to the end
		}
		end := size
		if err == nil {
			end, err = unix.Seek(int(f.Fd()), begin, unix.SEEK_HOLE)
		}
		if err != nil {
			return []segment{{0, size}}
		}
		begin, end = min(begin, size), min(end, size)
		out = append(out, segment{begin, end - begin})
		at = end
	}
	return fewer(out)
}

// fewer joins the parts that have the smallest holes between them, if there are too many.
func fewer(parts []segment) []segment {
	if len(parts) <= mostSegments {
		return parts
	}
	hole := func(i int) int64 { return parts[i].at - parts[i-1].at - parts[i-1].size }
	holes := make([]int64, 0, len(parts))
	for i := range parts[1:] {
		holes = append(holes, hole(i+1))
	}
	slices.Sort(holes)
	joins := len(parts) - mostSegments
	most := holes[joins-1]
	smaller, _ := slices.BinarySearch(holes, most)
	largest := joins - smaller // how many of the size most are joined too
	var out []segment
	for i, p := range parts {
		if i > 0 && hole(i) == most {
			largest--
		}
		if i == 0 || hole(i) > most || hole(i) == most && largest < 0 {
			out = append(out, p)
			continue
		}
		last := &out[len(out)-1]
		last.size = p.at + p.size - last.at
	}
	return out
}

// sparse writes the header of a file with holes, as GNU tar does it in version 1.0 of its
// format: the list of parts comes before them. It returns what they are written to, and what
// follows them.
//
// Go's writer does not write the records of that format. It writes others of the same length
// here, whose names are then replaced: a checksum is of the header alone, which has none of
// them.
func (b *backup) sparse(h *tar.Header, parts []segment) (io.Writer, []byte, error) {
	if n := len(parts); n == 0 || parts[n-1].at+parts[n-1].size < h.Size {
		parts = append(parts, segment{at: h.Size}) // tar takes the size of the file from the end of the last one
	}
	var list bytes.Buffer
	fmt.Fprintf(&list, "%d\n", len(parts))
	size := int64(0)
	for _, p := range parts {
		fmt.Fprintf(&list, "%d\n%d\n", p.at, p.size)
		size += p.size
	}
	list.Write(make([]byte, padded(int64(list.Len()))))
	const stand, real = "\x01NU.sparse.", "GNU.sparse."
	h.PAXRecords[stand+"major"], h.PAXRecords[stand+"minor"] = "1", "0"
	h.PAXRecords[stand+"name"], h.PAXRecords[stand+"realsize"] = h.Name, strconv.FormatInt(h.Size, 10)
	h.Name, h.Size = path.Join(path.Dir(h.Name), "GNUSparseFile.0", path.Base(h.Name)), int64(list.Len())+size
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(h); err != nil {
		return nil, nil, err
	}
	if err := b.tar.Flush(); err != nil {
		return nil, nil, err
	}
	raw := head.Bytes()
	rename(raw[block:len(raw)-block], stand, real)
	for _, part := range [][]byte{raw, list.Bytes()} {
		if _, err := b.w.Write(part); err != nil {
			return nil, nil, err
		}
	}
	return b.w, make([]byte, padded(size)), nil
}

// rename gives records others names of the same length. Values are not touched: a sandbox
// chooses them.
func rename(records []byte, from, to string) {
	for {
		digits, _, _ := bytes.Cut(records, []byte(" "))
		n, err := strconv.Atoi(string(digits))
		if err != nil || n <= len(digits) || n > len(records) {
			return // what follows the last one
		}
		if key := records[len(digits)+1 : n]; bytes.HasPrefix(key, []byte(from)) {
			copy(key, to)
		}
		records = records[n:]
	}
}

// block is the unit of a tar.
const block = 512

func padded(n int64) int64 { return (block - n%block) % block }

// addXattrs adds the extended attributes of an open file that a restore gives back.
func addXattrs(h *tar.Header, f *os.File) error {
	names := make([]byte, 64<<10)
	n, err := unix.Flistxattr(int(f.Fd()), names)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if !restorable(name) {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(int(f.Fd()), name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the extended attribute %q: %w", name, err)
		}
		h.PAXRecords[xattrRecord+name] = string(value[:n])
	}
	return nil
}

// restorable says whether an extended attribute is a matter of the volume alone, and has a
// name that a tar can have. Those of the host's security modules and overlays are not.
func restorable(name string) bool {
	return (strings.HasPrefix(name, "user.") || name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_")) && !strings.ContainsAny(name, "=\x00")
}
