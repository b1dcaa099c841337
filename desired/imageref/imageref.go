// SPDX-License-Identifier: Apache-2.0

// Package imageref takes references to images apart. Manifests, the host policy and the
// store of images all read references by it, so that what was judged is what is fetched.
// It links no client for registries.
package imageref

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// ErrInvalid is the error of a reference that makes no sense.
var ErrInvalid = errors.New("the image reference is not valid")

// invalidError says what is wrong with a reference.
type invalidError struct{ error }

func (invalidError) Is(target error) bool { return target == ErrInvalid }

func invalidf(format string, args ...any) error { return invalidError{fmt.Errorf(format, args...)} }

// Kind is where a reference points. It is the prefix that references of this kind have.
type Kind string

// The kinds.
const (
	// Registry is a registry: the kind of a reference without a prefix.
	Registry Kind = ""
	Layout   Kind = "oci"
	Archive  Kind = "archive"
	// Local is an image that was imported into the store and is nowhere else.
	Local Kind = "local"
)

// Of names that say no registry and no tag.
const (
	DockerHub  = "docker.io"
	aliasOfHub = "index.docker.io"
	officialOf = "library/"
	latest     = "latest"
)

// longest is the length of the longest reference: of a path.
const longest = 4096

// The grammar of references, as registries have it.
var (
	registry = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$`)
	})
	repository = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	})
	tagText   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`) })
	localName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9._:/-]{1,255}$`) })
	digest    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^sha256:[0-9a-f]{64}$`) })
)

// Reference is a reference to an image, taken apart.
type Reference struct {
	Kind Kind
	// Registry, Repository, Tag and Digest are those of a name in a registry. Tag is
	// empty if there is a digest and no tag was given.
	Registry, Repository, Tag, Digest string
	// Path is where a layout or an archive is, as it was written; Tag is then which one
	// of several images is meant. Of a local image it is the name.
	Path string
}

// Name is the name in the registry, without tag and digest.
func (r Reference) Name() string { return r.Registry + "/" + r.Repository }

// String is the reference in full. Parse reads it as the same reference.
func (r Reference) String() string {
	s := r.Name()
	if r.Kind != Registry {
		s = string(r.Kind) + ":" + r.Path
	}
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// Parse takes a reference apart, and completes a short one as docker does: its registry
// is Docker Hub, its tag "latest".
func Parse(s string) (Reference, error) {
	if s == "" || len(s) > longest || !printable(s) {
		return Reference{}, invalidf("expected an image such as nginx:1.27, oci:/DIR or archive:/FILE, got %s", quote(s))
	}
	kind, rest, _ := strings.Cut(s, ":")
	switch Kind(kind) {
	case Layout, Archive:
		return inFile(Kind(kind), rest)
	case Local:
		if !localName().MatchString(rest) {
			return Reference{}, invalidf("expected the name of an imported image (letters, digits and . _ : / -), got %s", quote(rest))
		}
		return Reference{Kind: Local, Path: rest}, nil
	case Registry: // it has no prefix
	}
	switch first, _, _ := strings.Cut(s, "/"); {
	case first == "" || first == "." || first == ".." || strings.HasPrefix(s, "~"):
		return Reference{}, invalidf("expected the name of an image, got the path %s; an archive is archive:/FILE, an OCI layout oci:/DIR", quote(s))
	case kind == "docker-daemon" || kind == "containers-storage":
		return Reference{}, invalidf(`%s: is not read; write an archive, as with "docker save" or "podman save", and use archive:/FILE`, kind)
	}
	if i := strings.Index(s, "://"); i >= 0 {
		return Reference{}, invalidf("expected the name of an image without %s; did you mean %s?", quote(s[:i+3]), quote(s[i+3:]))
	}
	// An image may have such a name, but no tag is like a path.
	if ours, found := otherPrograms[kind]; found && strings.Contains(rest, "/") {
		return Reference{}, invalidf("%s: is the prefix of another program; did you mean %s?", kind, quote(string(ours)+":"+rest))
	}
	return inRegistry(s)
}

// Normalize is Parse for the store: two references to the same image have one normal
// form. A tag beside a digest is left out, because the digest says which image it is.
func Normalize(s string) (Reference, error) {
	r, err := Parse(s)
	switch {
	case err != nil:
		return Reference{}, err
	case r.Kind == Layout || r.Kind == Archive:
		r.Path = filepath.Clean(r.Path)
	case r.Digest != "":
		r.Tag = ""
	}
	return r, nil
}

// CheckDigest checks the digest of an image.
func CheckDigest(s string) error {
	if !digest().MatchString(s) {
		return invalidf("expected sha256: and 64 of 0-9a-f, got %s", quote(s))
	}
	return nil
}

// otherPrograms are prefixes that skopeo and podman have, and which of ours mean the same.
var otherPrograms = map[string]Kind{"docker-archive": Archive, "oci-archive": Archive}

// inFile parses what follows "oci:" and "archive:": a path, and a tag behind the first
// colon in the last part of it. The tag may be "web:1".
func inFile(kind Kind, rest string) (Reference, error) {
	r := Reference{Kind: kind, Path: rest}
	dir := strings.LastIndexByte(rest, '/') + 1
	if last, tag, found := strings.Cut(rest[dir:], ":"); found {
		r.Path, r.Tag = rest[:dir]+last, tag
	}
	if !filepath.IsAbs(r.Path) {
		return Reference{}, invalidf("expected an absolute path, got %s", quote(r.Path))
	}
	// Without what ends it, "/a:b/" or "/a:b/." would be /a with the tag b.
	if strings.Contains(filepath.Base(r.Path), ":") || strings.Contains(filepath.Base(filepath.Clean(r.Path)), ":") {
		return Reference{}, invalidf("expected no colon in the name of the directory or file, which begins a tag, got %s", quote(r.Path))
	}
	return r, nil
}

// inRegistry parses the name of an image in a registry.
func inRegistry(s string) (r Reference, err error) {
	name, pin, pinned := strings.Cut(s, "@")
	if pinned {
		if err := CheckDigest(pin); err != nil {
			return Reference{}, err
		}
		r.Digest = pin
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, r.Tag = name[:i], name[i+1:]
		if !tagText().MatchString(r.Tag) {
			return Reference{}, invalidf("expected a tag of letters, digits, _, - and ., at most 128, got %s", quote(r.Tag))
		}
	} else if !pinned {
		r.Tag = latest
	}
	r.Registry, r.Repository = DockerHub, name
	// As docker tells a registry from the first part of a name.
	first, rest, deep := strings.Cut(name, "/")
	if deep && (strings.ContainsAny(first, ".:[") || first == "localhost") {
		r.Registry, r.Repository = strings.ToLower(first), rest
	}
	if r.Registry == aliasOfHub {
		r.Registry = DockerHub
	}
	if r.Registry == DockerHub && !strings.Contains(r.Repository, "/") {
		r.Repository = officialOf + r.Repository
	}
	switch {
	case !isHost(r.Registry):
		return Reference{}, invalidf("expected a registry such as docker.io or localhost:5000, got %s", quote(first))
	case repository().MatchString(r.Repository) && len(r.Repository) <= 255:
		return r, nil
	}
	hint := ""
	if repository().MatchString(strings.ToLower(r.Repository)) {
		hint = fmt.Sprintf("; did you mean %s?", quote(strings.ToLower(s)))
	}
	return Reference{}, invalidf("expected the name of an image (lower-case letters, digits, separated by one of . _ __ - /), got %s%s", quote(name), hint)
}

// isHost says whether a text may be a host, with a port or without.
func isHost(s string) bool {
	if !registry().MatchString(s) {
		return false
	}
	inner, ok := strings.CutPrefix(s, "[")
	if !ok {
		return true
	}
	inner, _, _ = strings.Cut(inner, "]")
	ip, err := netip.ParseAddr(inner)
	return err == nil && ip.Is6()
}

// printable says whether a text can be shown: it has no control characters, and nothing
// that changes the direction of what follows.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// quote is a text for a message; a long one is cut.
func quote(s string) string {
	if most := 60; len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}
