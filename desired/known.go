// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"sync"

	"sandboxctl.dev/desired/yamldoc"
)

// build identifies the program file that runs. Another build may default or
// judge a manifest differently, so what it made of a text is not reused.
var build = sync.OnceValue(func() string {
	// It leads to the file itself, also when that was replaced meanwhile.
	fi, err := os.Stat("/proc/self/exe")
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d %d", fi.Size(), fi.ModTime().UnixNano())
})

// digestOf identifies the text of a document, decoded by this build; "" if the
// build can't be told.
func digestOf(text []byte) string {
	if build() == "" {
		return ""
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00", build())
	h.Write(text)
	return hex.EncodeToString(h.Sum(nil))
}

// recall returns what Known has of a document, nil if it must be decoded.
func recall(known func(string) *Entry, file string, c yamldoc.Chunk) *Entry {
	digest := digestOf(c.Text)
	if known == nil || digest == "" {
		return nil
	}
	line, ok := yamldoc.FirstKey(c.Text)
	if !ok {
		return nil
	}
	e := known(digest)
	// Where a size is, only the text tells.
	if e == nil || slices.ContainsFunc(e.Sandbox.Spec.Volumes, func(v Volume) bool { return v.Volume != nil && v.Volume.Size > 0 }) {
		return nil
	}
	e.Source = Position{File: file, Line: c.Line + line, Column: 1}
	e.Digest = digest
	return e
}
