// SPDX-License-Identifier: Apache-2.0

package actual

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/ownjson"
	"sandboxctl.dev/actual/process"
)

const daemonFile = "daemon.json"

// maxDaemonInfo bounds it: the source remembers directories and names.
const maxDaemonInfo = 16 << 20

// DaemonInfo is what a daemon says of itself, so that other processes can tell
// whether it lives and compute the same plan. It is information, not state:
// losing it loses nothing but the memory of the source.
type DaemonInfo struct {
	Version      string           `json:"version"`
	Process      process.Identity `json:"process"`
	StartedAt    time.Time        `json:"startedAt"`
	ManifestsDir string           `json:"manifestsDir"`
	// Policy is the planner's, Memory the source's; both are opaque here.
	Policy json.RawMessage `json:"policy,omitempty"`
	Memory json.RawMessage `json:"memory,omitempty"`
	// HostPolicy is what manifests are judged by.
	HostPolicy PolicyRef `json:"hostPolicy,omitzero"`
	// Registries is the file that says how registries are spoken to, "" for that of the
	// host.
	Registries string `json:"registries,omitempty"`
	// ClientSocket is where clients are answered, "" for nowhere.
	ClientSocket string `json:"clientSocket,omitempty"`
	// InputKey is the key of this host for what is on record of Config and Secret
	// documents. Without it, it can't be told whether one has changed since a start.
	InputKey string `json:"inputKey,omitempty"`
	// Removals are the times of the last removals that nobody had approved.
	Removals []time.Time `json:"removals,omitempty"`
}

// PolicyRef says which host policy a daemon uses.
type PolicyRef struct {
	Path string `json:"path"`
	// Optional says that the built-in policy counts if there is no file.
	Optional bool `json:"optional,omitempty"`
	// Digest is of the policy that was in force last, "" if it could not be
	// used.
	Digest string `json:"digest,omitempty"`
}

// PutDaemonInfo replaces it. For the holder of the lock.
func (s *Store) PutDaemonInfo(d *DaemonInfo) error {
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode daemon information: %w", err)
	}
	if err := crashpoint.Do(crashpoint.DaemonInfo, func() error { return s.write(s.root, daemonFile, append(b, '\n'), true) }); err != nil {
		return fmt.Errorf("write daemon information: %w", err)
	}
	return nil
}

// DaemonInfo returns what the last daemon said, nil if there was none, and
// whether it lives.
func (s *Store) DaemonInfo() (*DaemonInfo, process.Liveness, error) {
	b, err := readRegular(s.root, daemonFile, maxDaemonInfo)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, process.None, nil
	}
	if err != nil {
		return nil, process.Unknown, fmt.Errorf("read daemon information: %w", err)
	}
	return decodeDaemonInfo(b)
}

func decodeDaemonInfo(b []byte) (*DaemonInfo, process.Liveness, error) {
	var d DaemonInfo
	if err := ownjson.Unmarshal(b, &d); err != nil {
		return nil, process.Unknown, fmt.Errorf("read daemon information: %w", err)
	}
	p, err := process.Open(d.Process)
	switch {
	case errors.Is(err, process.ErrGone):
		return &d, process.Dead, nil
	case err != nil:
		return &d, process.Unknown, nil
	}
	defer p.Close()
	return &d, p.Alive(), nil
}
