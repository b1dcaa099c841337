// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/ownjson"
	"sandboxctl.dev/actual/process"
)

const progressFile = "progress.json"

// maxProgress bounds it.
const maxProgress = 4 << 20

// Progress is what a daemon does and waits for beside what records say, for other
// processes that tell it. It is worth nothing when the daemon has ended.
type Progress struct {
	Process process.Identity `json:"process"`
	// State is the loop's, opaque here.
	State json.RawMessage `json:"state"`
}

// PutProgress replaces it. It is not forced to disk: no power cut leaves a daemon
// that it could be of. For the holder of the lock.
func (s *Store) PutProgress(p *Progress) error {
	b, err := json.Marshal(p)
	if err == nil && len(b) > maxProgress {
		err = fmt.Errorf("%d bytes, expected at most %d", len(b), maxProgress)
	}
	if err == nil {
		err = crashpoint.Do(crashpoint.ProgressPut, func() error { return atomicfile.In{Dir: s.root}.Publish(progressFile, b, 0o600) })
	}
	if err != nil {
		// What is there is out of date. Without it readers go by the records.
		return fmt.Errorf("write progress: %w", errors.Join(err, atomicfile.In{Dir: s.root}.Remove(progressFile)))
	}
	return nil
}

// Progress returns what the daemon that lives said last, nil if it said nothing or
// there is none.
func (s *Store) Progress() (json.RawMessage, error) {
	b, err := readRegular(s.root, progressFile, maxProgress)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	return decodeProgress(b)
}

func decodeProgress(b []byte) (json.RawMessage, error) {
	var p Progress
	if err := ownjson.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	d, err := process.Open(p.Process)
	if err != nil {
		return nil, nil //nolint:nilerr // that daemon is gone, or can't be told from another process
	}
	defer d.Close()
	if d.Alive() != process.Alive {
		return nil, nil
	}
	return p.State, nil
}
