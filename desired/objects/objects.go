// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"
)

// The kinds of documents. Only of a Config and a Secret do sandboxes take values.
const (
	Config  = "Config"
	Secret  = "Secret"
	Volume  = "Volume"
	Network = "Network"
	Pool    = "SandboxPool"
)

// Kinds are all of them.
var Kinds = []string{Config, Secret, Volume, Network, Pool}

// Word is what a kind is called in full names, as config in config/web.
func Word(kind string) string { return strings.ToLower(strings.TrimPrefix(kind, "Sandbox")) }

// MaxKeys bounds the keys of one object.
const MaxKeys = 500

// KeyRule describes ValidKey.
const KeyRule = "letters, digits, -, _ and ., at most 253, and not . or .. at the beginning"

// ValidKey says whether a text can be the key of a value. It can be the name of a file.
func ValidKey(key string) bool {
	if key == "" || len(key) > 253 || key == "." || strings.HasPrefix(key, "..") {
		return false
	}
	for _, c := range []byte(key) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// Name is what an object of a kind is called among all kinds, as in config/web. No name
// of a sandbox has a slash.
func Name(kind, name string) string { return Word(kind) + "/" + name }

// Split takes apart what Name made; ok is false for the name of a sandbox.
func Split(full string) (kind, name string, ok bool) {
	of, name, ok := strings.Cut(full, "/")
	i := slices.IndexFunc(Kinds, func(k string) bool { return Word(k) == of })
	if !ok || i < 0 {
		return "", "", false
	}
	return Kinds[i], name, true
}

// RefPath is the path that a reference to an object has, or to one of its values if key is not
// "". No path of a file looks like it.
func RefPath(kind, name, key string) string {
	p := Name(kind, name)
	if key != "" {
		p += "/" + key
	}
	return p
}

// Referred takes apart the path of a reference; ok is false for that of a file.
func Referred(refPath string) (name, key string, ok bool) {
	kind, rest, ok := Split(refPath)
	if !ok {
		return "", "", false
	}
	n, key, _ := strings.Cut(rest, "/")
	return Name(kind, n), key, true
}

// Object is a document of one of the kinds. It is a value: nobody modifies it. Its fields are not
// exported, so that no encoder writes them.
type Object struct {
	name   string // the full one
	values map[string][]byte
	files  map[string]string
}

// New returns an object with values, and with paths of files of the host that hold
// values. No key is in both.
func New(kind, name string, values map[string][]byte, files map[string]string) *Object {
	return &Object{name: Name(kind, name), values: values, files: files}
}

// Name is its full name, as in config/web.
func (o *Object) Name() string { return o.name }

// Format prints the name, whatever the verb: values must not get into a log by accident.
func (o *Object) Format(f fmt.State, _ rune) { fmt.Fprint(f, o.Name()) }

// Keys are those of all values, sorted.
func (o *Object) Keys() []string {
	keys := slices.AppendSeq(make([]string, 0, len(o.values)+len(o.files)), maps.Keys(o.values))
	keys = slices.AppendSeq(keys, maps.Keys(o.files))
	slices.Sort(keys)
	return keys
}

// Has says whether there is a value with a key.
func (o *Object) Has(key string) bool {
	_, value := o.values[key]
	return value || o.files[key] != ""
}

// Value is a value that is not in a file.
func (o *Object) Value(key string) []byte { return o.values[key] }

// File is the path of the file with a value, "" if the value is not in a file.
func (o *Object) File(key string) string { return o.files[key] }

// HostKey makes IDs that say nothing to those who do not have it.
type HostKey []byte

// HostKeySize is the number of bytes of a key.
const HostKeySize = 32

// NewHostKey makes a key.
func NewHostKey() HostKey {
	k := make(HostKey, HostKeySize)
	_, _ = rand.Read(k) // it does not fail
	return k
}

// ParseHostKey reads the hexadecimal digits of a key; what is none is nil.
func ParseHostKey(s string) HostKey {
	k, err := hex.DecodeString(s)
	if err != nil || len(k) != HostKeySize {
		return nil
	}
	return k
}

// Digits are what ParseHostKey reads.
func (k HostKey) Digits() string { return hex.EncodeToString(k) }

// name tells keys apart, and nothing about them.
func (k HostKey) name() string {
	sum := sha256.Sum256(append([]byte("sandboxctl input key name\x00"), k...))
	return hex.EncodeToString(sum[:4])
}

// ID is another one when one of the values with these keys has changed; file returns the
// identity of a file. Without a key of the host it is "".
//
// It is on record. A plain digest of a password would let who reads the record find the
// password by trying.
func (o *Object) ID(key HostKey, keys []string, file func(path string) string) string {
	if len(key) != HostKeySize {
		return ""
	}
	mac := hmac.New(sha256.New, key)
	write(mac, o.Name())
	for _, k := range keys {
		write(mac, k)
		if p := o.files[k]; p != "" {
			write(mac, "file")
			write(mac, p)
			write(mac, file(p))
			continue
		}
		write(mac, "value")
		write(mac, string(o.values[k]))
	}
	return key.name() + ":" + hex.EncodeToString(mac.Sum(nil)[:16])
}

// write adds a text so that no other two make the same bytes.
func write(h hash.Hash, s string) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(s)))
	h.Write(n[:])
	h.Write([]byte(s))
}

// Comparable says whether two IDs were made with the same key. Otherwise, as after the
// key was lost, it can't be told whether anything has changed.
func Comparable(a, b string) bool {
	ka, _, _ := strings.Cut(a, ":")
	kb, _, _ := strings.Cut(b, ":")
	return ka == kb && a != "" && b != ""
}
