// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"sandboxctl.dev/actual/ownjson"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/actual/upgrade"
)

// MaxRecord bounds the size of a record file.
const MaxRecord = 1 << 20

// A file is {"crc32c":"XXXXXXXX","KIND":{…}} and a newline, byte for byte: a flipped
// bit anywhere in it is noticed.
const (
	head = `{"crc32c":"`
	tail = "}\n"

	recordKind = "record"
	setupKind  = "setup"
)

func mid(kind string) string { return `","` + kind + `":` }

// castagnoli is the table of Go for the instructions that processors have for this checksum.
// To make it takes 0.2 ms: as long as plain takes for 80 kB.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// plain is a table for the same checksum, byte by byte: Go uses the instructions with its own
// table alone.
var plain = sync.OnceValue(func() *crc32.Table {
	t := new(crc32.Table)
	for i := range t {
		crc := uint32(i)
		for range 8 {
			crc = crc>>1 ^ -(crc&1)&crc32.Castagnoli
		}
		t[i] = crc
	}
	return t
})

// plainBytes is how much is summed plainly: the record and the set-up of one sandbox, which
// is all that most verbs read. plainSummed is how much was.
const plainBytes = 16 << 10

var plainSummed atomic.Int64

func checksum(body []byte) uint32 {
	if plainSummed.Load() < plainBytes && plainSummed.Add(int64(len(body))) <= plainBytes {
		return crc32.Checksum(body, plain())
	}
	return crc32.Checksum(body, castagnoli())
}

// seal returns the file of a body.
func seal(kind string, body []byte) []byte {
	b := make([]byte, 0, len(head)+8+len(mid(kind))+len(body)+len(tail))
	b = fmt.Appendf(b, "%s%08x%s", head, checksum(body), mid(kind))
	b = append(b, body...)
	return append(b, tail...)
}

// unseal returns the body of a file. An error means that nothing in it can be relied
// on.
func unseal(kind string, b []byte) ([]byte, error) {
	n := len(head) + 8 + len(mid(kind))
	if len(b) < n+len(tail) || !bytes.HasPrefix(b, []byte(head)) || string(b[len(head)+8:n]) != mid(kind) || !bytes.HasSuffix(b, []byte(tail)) {
		return nil, fmt.Errorf("not a %s file, or cut short", kind)
	}
	body := b[n : len(b)-len(tail)]
	if want := fmt.Sprintf("%08x", checksum(body)); want != string(b[len(head):len(head)+8]) {
		return nil, errors.New("the checksum does not match: it was changed or damaged")
	}
	return body, nil
}

// EncodeRecord returns the file of a record.
func EncodeRecord(r *Record) ([]byte, error) {
	if err := checkRecord(r); err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	b := seal(recordKind, body)
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("encode record: %d bytes, at most %d are allowed", len(b), MaxRecord)
	}
	return b, nil
}

// DecodeRecord reads the file of a record. upgrade.ErrNewer if it is from a later
// version; any other error means that nothing in it can be relied on.
func DecodeRecord(b []byte) (*Record, error) {
	if len(b) > MaxRecord {
		return nil, errors.New("decode record: not a record file: it is too long")
	}
	body, err := unseal(recordKind, b)
	if err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	r, err := decodeBody(body)
	if err != nil || r.Version != RecordVersion {
		upgraded, uerr := upgrade.Record(body)
		if uerr != nil {
			// What is wrong with one of this version is the first error.
			return nil, fmt.Errorf("decode record: %w", errors.Join(err, uerr))
		}
		body = upgraded
		if r, err = decodeBody(body); err != nil {
			return nil, fmt.Errorf("decode record: %w", err)
		}
	}
	if err := checkRecord(r); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}

func decodeBody(body []byte) (*Record, error) {
	r := new(Record)
	if ownjson.Try(body, r) {
		return r, nil
	}
	r = new(Record)
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(r); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows it")
	}
	return r, nil
}

// checkRecord refuses what must never be written or believed.
func checkRecord(r *Record) error {
	if r.Version != RecordVersion {
		return fmt.Errorf("version %d, expected %d", r.Version, RecordVersion)
	}
	if !ValidID(r.Name) {
		return fmt.Errorf("%q is not the name of a sandbox", r.Name)
	}
	if r.UID == "" || r.Attempt < 0 || r.Generation < 0 {
		return errors.New("a counter is negative or the uid is empty")
	}
	if err := checkContainers(r); err != nil {
		return err
	}
	switch r.Phase {
	case PhaseCreating, PhaseCreated, PhaseStarting, PhaseRunning, PhaseStopping, PhaseStopped:
	default:
		return fmt.Errorf("unknown phase %q", r.Phase)
	}
	for _, id := range []*process.Identity{r.Sentry, r.Gofer} {
		// kill(-1) is every process of the host; pids do not exceed 2^22.
		if id != nil && (id.PID <= 1 || id.PID > 1<<22) {
			return fmt.Errorf("pid %d is not one of a sandbox", id.PID)
		}
	}
	return nil
}

// checkContainers refuses a record of other containers than this program can run:
// App relies on it.
func checkContainers(r *Record) error {
	if len(r.Containers) != 1 {
		return fmt.Errorf("%d containers, this program knows sandboxes with one", len(r.Containers))
	}
	app := r.App()
	if app.Name != AppName {
		return fmt.Errorf("a container is named %q, this program knows %q", app.Name, AppName)
	}
	if app.Failures < 0 || app.Restarts < 0 {
		return fmt.Errorf("a counter of container %s is negative", app.Name)
	}
	if r.Ending == nil {
		return nil
	}
	if n := len(r.Ending.Containers); n > 1 || n == 1 && r.Ending.Containers[0].Name != app.Name {
		return errors.New("the order to stop names containers that do not exist")
	}
	return nil
}

// ValidID says whether s may be the id of a container of an OCI client: up to
// 128 letters, digits and any of _+-. that begin with a letter, a digit or _. It
// is the name of a file in one directory, and never an option.
func ValidID(s string) bool {
	if s == "" || len(s) > 128 || strings.IndexByte("+-.", s[0]) >= 0 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("_+-.", c) < 0 {
			return false
		}
	}
	return true
}

// ValidName says whether a name may be a sandbox's: a DNS-1123 label, which is
// never ".", ".." or an option.
func ValidName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
