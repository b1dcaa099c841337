// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/envfile"
	"sandboxctl.dev/desired/hostpolicy"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/ownfield"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/desired/yamldoc"
	"sandboxctl.dev/desired/zone"
	"sandboxctl.dev/launcher/hostfs"
	"sandboxctl.dev/launcher/setup"
)

// Read is what a sandbox has been given beside its manifest.
type Read struct {
	// Inputs say what was read, for the record.
	Inputs []actual.Input
	// Variables are those that come from files: names are unique.
	Variables []envfile.Variable
	// Files are those of the volumes in memory, by the name of the volume.
	Files map[string][]setup.MemoryFile
	// Timezone is the time zone that the manifest asks for, nil if it does not.
	Timezone *zone.Zone
	// Objects are the documents that the start was decided by.
	Objects desired.Objects
	// Places are where the sandbox is on networks.
	Places []ownfield.Place
}

// Documents are what a start may take values of.
type Documents struct {
	Objects desired.Objects
	// HostKey makes what is noted of them for the record.
	HostKey objects.HostKey
}

// reader reads for one start.
type reader struct {
	docs   Documents
	ctx    context.Context //nolint:containedctx // of the one start that it reads for
	policy *hostpolicy.Policy
	host   *hostfs.Host
	read   Read
	// at is where each variable is, by name: there may be very many.
	at map[string]int
	// size is how many bytes the volumes have so far, and variables how many those have
	// that are values of documents.
	size, variables int
}

const (
	// readTimeout bounds how long files may take to be read: they may be on a network
	// filesystem whose server does not answer.
	readTimeout = 20 * time.Second
	// waits is how long a read holds a worker.
	waits = time.Second
	// writing is how long a writer that has a file open is waited for, looked at again
	// after each lookAgain: it may be an editor, or a process that has just been forked
	// off a writer.
	writing   = 3 * time.Second
	lookAgain = 20 * time.Millisecond
)

// hanging is how many reads are under way.
var hanging atomic.Int64

// ForStart reads what a manifest refers to, of a policy that allows the manifest. What
// was read is returned with an error too: its change makes another try worthwhile.
func ForStart(ctx context.Context, sb *desired.Sandbox, docs Documents, policy *hostpolicy.Policy, host *hostfs.Host) (*Read, error) {
	if sb.Spec.Timezone == "" && len(sb.Spec.FileRefs()) == 0 && !slices.ContainsFunc(sb.Spec.Volumes, func(v desired.Volume) bool { return v.InMemory() != nil }) {
		return &Read{}, nil
	}
	return bounded(ctx, docs, policy, host, func(r *reader) error { return r.all(sb) })
}

// ForRefresh reads what volumes in memory of a manifest are to have, those of these names.
func ForRefresh(ctx context.Context, sb *desired.Sandbox, volumes []string, docs Documents, policy *hostpolicy.Policy, host *hostfs.Host) (*Read, error) {
	return bounded(ctx, docs, policy, host, func(r *reader) error {
		return r.volumes(sb, func(name string) bool { return slices.Contains(volumes, name) })
	})
}

// bounded has a reader read, and gives it up when that takes too long.
func bounded(ctx context.Context, docs Documents, policy *hostpolicy.Policy, host *hostfs.Host, all func(*reader) error) (*Read, error) {
	defer operation.WaitsAfter(ctx, waits)()
	ctx, cancel := context.WithTimeoutCause(ctx, readTimeout, fmt.Errorf("not read within %s", readTimeout))
	defer cancel()
	type result struct {
		read *Read
		err  error
	}
	// A thread each, for ever perhaps: see mostHanging.
	if n := hanging.Add(1); n > mostHanging {
		hanging.Add(-1)
		return &Read{}, fmt.Errorf("read the files that the manifest refers to: %d operations wait for files of filesystems that do not answer", n-1)
	}
	// In a goroutine: nothing else ends an open that its server does not answer.
	done := make(chan result, 1)
	go func() {
		r := &reader{ctx: ctx, docs: docs, policy: policy, host: host, at: map[string]int{}, read: Read{Files: map[string][]setup.MemoryFile{}}}
		err := all(r)
		hanging.Add(-1)
		done <- result{&r.read, err}
	}()
	select {
	case r := <-done:
		return r.read, r.err
	case <-ctx.Done():
		return &Read{}, fmt.Errorf("read the files that the manifest refers to: %w", context.Cause(ctx))
	}
}

// all reads everything, and tells all that is wrong.
func (r *reader) all(sb *desired.Sandbox) error {
	return errors.Join(r.environment(sb), r.timezone(sb.Spec.Timezone), r.volumes(sb, func(string) bool { return true }))
}

// volumes reads the volumes in memory that are wanted.
func (r *reader) volumes(sb *desired.Sandbox, wanted func(name string) bool) error {
	var errs []error
	for i := range sb.Spec.Volumes {
		v := &sb.Spec.Volumes[i]
		if v.InMemory() == nil || !wanted(v.Name) {
			continue
		}
		files, err := r.volume(v, fmt.Sprintf("spec.volumes[%d]", i))
		errs = append(errs, err)
		r.read.Files[v.Name] = files
		// Before the next file is read: a manifest can name one as often as would take all
		// of this program's memory.
		if r.size > desired.MaxFileSets {
			errs = append(errs, operation.Precondition(fmt.Errorf("spec.volumes: config and secret volumes have more than %d bytes; use hostPath for large files", desired.MaxFileSets)))
			break
		}
	}
	return errors.Join(errs...)
}

// volume reads the files of a volume in memory.
func (r *reader) volume(v *desired.Volume, at string) (files []setup.MemoryFile, err error) {
	set, kind := v.InMemory(), v.Kind()
	of := at + "." + strings.ToLower(kind)
	if set.Name != "" {
		return r.namedVolume(v, at, of, kind)
	}
	for _, name := range slices.Sorted(maps.Keys(set.Data)) {
		if !v.Shows(name) {
			continue
		}
		files = append(files, setup.MemoryFile{Name: name, Mode: set.Mode.Bits(), Data: []byte(set.Data[name])})
		r.size += len(set.Data[name])
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(set.Files)) {
		if r.size > desired.MaxFileSets {
			break
		}
		if !v.Shows(name) {
			continue
		}
		data, there, err := r.file(set.Files[name], set.Optional, desired.MaxFileSize)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", yamldoc.Join(of+".files", name), err))
		} else if there {
			files = append(files, setup.MemoryFile{Name: name, Mode: set.Mode.Bits(), Data: data})
			r.size += len(data)
		}
	}
	return files, errors.Join(errs...)
}

// environment reads the sources of envFrom and env. A later one replaces variables of
// an earlier one, and env those of envFrom.
func (r *reader) environment(sb *desired.Sandbox) error {
	var errs []error
	for i, from := range sb.Spec.EnvFrom {
		if from.File == "" {
			errs = append(errs, r.fromDocument(&sb.Spec.EnvFrom[i], fmt.Sprintf("spec.envFrom[%d]", i)))
			continue
		}
		text, _, err := r.file(from.File, from.Optional, envfile.MaxBytes)
		var vars []envfile.Variable
		if err == nil {
			vars, err = parse(&from, text)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.envFrom[%d].file: %w", i, err))
			continue
		}
		for _, v := range vars {
			r.set(envfile.Variable{Name: from.Prefix + v.Name, Value: v.Value})
		}
	}
	for i := range sb.Spec.Env {
		e := &sb.Spec.Env[i]
		if !e.ReadAtStart() {
			continue
		}
		field, value, there, err := r.value(e.ValueFrom)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("spec.env[%d].valueFrom.%s: %w", i, field, err))
		case there:
			r.set(envfile.Variable{Name: e.Name, Value: value})
		}
	}
	if r.variables > desired.MaxFileSets {
		errs = append(errs, operation.Precondition(fmt.Errorf("spec.envFrom: variables of documents have more than %d bytes; use a volume for large files", desired.MaxFileSets)))
	}
	return errors.Join(errs...)
}

// set adds a variable, or replaces the one of its name.
func (r *reader) set(v envfile.Variable) {
	if i, again := r.at[v.Name]; again {
		r.read.Variables[i] = v
		return
	}
	r.at[v.Name] = len(r.read.Variables)
	r.read.Variables = append(r.read.Variables, v)
}

// value reads the value of one variable, from the field that is set.
func (r *reader) value(from *desired.EnvSource) (field, value string, there bool, err error) {
	if from.File == "" {
		return r.keyValue(from)
	}
	text, there, err := r.file(from.File, from.Optional, envfile.MaxValue)
	if err != nil || !there {
		return "file", "", false, err
	}
	if err := checkValue("read "+from.File, text); err != nil {
		return "file", "", false, err
	}
	return "file", ofFile(text), true, nil
}

// ofFile is the value in a file: as an editor or echo leaves it.
func ofFile(text []byte) string {
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
}

// checkValue says what keeps a text from being the value of a variable.
func checkValue(what string, text []byte) error {
	if !utf8.Valid(text) {
		return operation.Precondition(fmt.Errorf("%s: expected UTF-8; give other bytes as a file of a volume", what))
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return operation.Precondition(fmt.Errorf("%s: byte %d is a NUL, which can't be in an environment", what, i+1))
	}
	return nil
}

// file reads one file, and notes which one it was. there is false for one that may be
// missing and is.
func (r *reader) file(path string, optional bool, limit int64) (text []byte, there bool, err error) {
	text, id, missing, err := r.content(path, optional, limit)
	if err == nil || id != "" {
		r.read.Inputs = append(r.read.Inputs, actual.Input{File: path, ID: id})
	}
	return text, err != nil || !missing, err
}

// content reads one file that the policy allows. missing is for one that may be missing
// and is.
func (r *reader) content(path string, optional bool, limit int64) (text []byte, id string, missing bool, err error) {
	allowed, err := r.policy.AllowedRoot(hostpolicy.VolumePath, path, false)
	if err != nil {
		return nil, "", false, err
	}
	src := setup.Source{Path: path, Kind: hostpolicy.VolumePath, Allowed: allowed, ReadOnly: true}
	text, id, err = r.settled(&src, limit)
	if optional && id == "" && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) {
		return nil, "", true, nil
	}
	return text, id, false, err
}

// settled reads a file when nobody has it open for writing.
func (r *reader) settled(src *setup.Source, limit int64) (text []byte, id string, err error) {
	end := time.NewTimer(writing)
	defer end.Stop()
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		text, id, err = hostfs.ReadFile(src, r.policy, r.host, limit)
		if !errors.Is(err, trustedfile.ErrWriting) {
			return text, id, err
		}
		select {
		case <-again.C:
		case <-end.C:
			return text, id, err
		case <-r.ctx.Done():
			return text, id, err
		}
	}
}

func parse(from *desired.EnvFrom, text []byte) ([]envfile.Variable, error) {
	vars, err := envfile.Parse(text, from.Format == desired.FormatRaw)
	if err != nil {
		// Somebody has to edit it.
		return nil, operation.Precondition(fmt.Errorf("%s:%w", from.File, err))
	}
	return vars, nil
}
