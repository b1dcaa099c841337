// SPDX-License-Identifier: Apache-2.0

package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"sandboxctl.dev/desired/imageref"
)

// Tag is what a reference meant when it was resolved.
type Tag struct {
	Ref      string    `json:"ref"`
	Digest   string    `json:"digest"`
	Resolved time.Time `json:"resolved"`
}

// tagFile is the file that has it. A reference has characters that a name can't have.
func tagFile(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return hex.EncodeToString(sum[:]) + metaSuffix
}

// tag reads what a reference meant: ErrNotFound if it was never resolved.
func (s *Store) tag(ref string) (Tag, error) {
	b, err := readFile(s.refs, tagFile(ref))
	if errors.Is(err, fs.ErrNotExist) {
		return Tag{}, ErrNotFound
	}
	if err != nil {
		return Tag{}, err
	}
	return decodeTag(tagFile(ref), b)
}

func decodeTag(file string, b []byte) (Tag, error) {
	var t Tag
	err := json.Unmarshal(b, &t)
	if _, ok := plain(t.Digest); err == nil && (!ok || tagFile(t.Ref) != file) {
		err = errors.New("its content is not that of its name")
	}
	if err != nil {
		return Tag{}, fmt.Errorf("%w: %s/%s: %w", ErrDamaged, refsDir, file, err)
	}
	return t, nil
}

// PutTag writes down what a reference means now.
func (s *Store) PutTag(ref, digest string) error {
	if old, err := s.tag(ref); err == nil && old.Digest == digest {
		return nil
	}
	b, err := json.Marshal(Tag{Ref: ref, Digest: digest, Resolved: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	return Full(in(s.refs).Write(tagFile(ref), b, 0o600))
}

// Known takes the image that a reference meant when it was resolved: ErrNotFound if it
// was never, or if the image is gone. Nobody is asked. The image is the caller's to close.
func (s *Store) Known(ref imageref.Reference) (*Image, error) {
	digest, err := s.Meaning(ref)
	if err != nil {
		return nil, err
	}
	img, err := s.Find(digest)
	if err != nil {
		return nil, err
	}
	img.Ref = ref.String()
	return img, nil
}

// Meaning is the digest of the image that a reference meant when it was resolved:
// ErrNotFound if it was never.
func (s *Store) Meaning(ref imageref.Reference) (digest string, err error) {
	t, err := s.tag(ref.String())
	if errors.Is(err, ErrNotFound) && ref.Digest != "" {
		return ref.Digest, nil // it may have come by another name
	}
	return t.Digest, err
}
