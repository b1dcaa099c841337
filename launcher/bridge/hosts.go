// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/atomicfile"
	"sandboxctl.dev/actual/crashpoint"
	"sandboxctl.dev/actual/dirfd"
	"sandboxctl.dev/actual/fsys"
	"sandboxctl.dev/actual/untrusted"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/firewall/stricter"
	"sandboxctl.dev/launcher/names"
)

// hostsFile is the file in the directory that a sandbox is shown.
const hostsFile = "hosts"

// ShowNames makes the directory in which a sandbox is shown the names that it sees, also
// while no daemon runs, and opens it. The caller closes it.
func (k *Keeper) ShowNames(rec *actual.Record) (_ *os.File, err error) {
	top, err := k.store.Dir(rec.Name)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	err = crashpoint.Do(crashpoint.NamesMake, func() error { return fsys.Of(top).Mkdir(gofer.NamesDir, 0o755) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make directory of names: %w", err)
	}
	dir, err := untrusted.OpenDir(int(top.Fd()), gofer.NamesDir)
	if err != nil {
		return nil, fmt.Errorf("open directory of names: %w", err)
	}
	// Its gofer may be nobody who may do more than others; the umask has taken that away.
	err = unix.Fchmod(int(dir.Fd()), 0o755)
	if err == nil {
		// Of the others nothing is touched: what is wrong with theirs is no matter of this one.
		var failed map[string]error
		failed, err = k.writeNames(rec.Name, func(_, _ []byte) bool { return true })
		err = errors.Join(err, failed[rec.Name])
	}
	if err == nil {
		_, err = fsys.Of(dir).Stat(hostsFile)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write names of sandboxes: %w", err), dir.Close())
	}
	return dir, nil
}

// correctNames writes the hosts files that may say of an address that it is another
// sandbox's: before packets to it arrive.
func (k *Keeper) correctNames() error {
	records, err := k.records()
	if err != nil {
		return err
	}
	now := ownersOf(records)
	k.mu.Lock()
	maps.Copy(k.added, now)
	reused := k.owners == nil
	for a, name := range now {
		reused = reused || k.owners[a] != "" && k.owners[a] != name
	}
	if !reused {
		maps.Copy(k.owners, now)
	}
	k.mu.Unlock()
	if !reused {
		return nil
	}
	failed, err := k.writeNames("", names.Misleads)
	if err != nil {
		return err
	}
	// That the file of one can't be corrected is a matter of that one: others are started. The
	// next look tries it again.
	k.cannotName(failed)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.owners == nil {
		k.owners = map[netip.Addr]string{}
	}
	maps.Copy(k.owners, now)
	return nil
}

// ownersOf are the sandboxes that have addresses.
func ownersOf(records []*actual.Record) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	for _, r := range records {
		for _, a := range stricter.Addresses(attachments(r)) {
			out[a] = r.Name
		}
	}
	return out
}

// cannotName notes whose hosts files can't be written, and logs what has changed of that.
func (k *Keeper) cannotName(failed map[string]error) {
	k.mu.Lock()
	had := k.misnamed
	k.misnamed = failed
	k.mu.Unlock()
	for name, err := range failed {
		if before := had[name]; before == nil || before.Error() != err.Error() {
			k.log.Warn("names not written, will retry: the sandbox may take another one for one that had its address", "sandbox", name, "err", err)
		}
	}
	for name := range had {
		if failed[name] == nil {
			k.log.Info("names written again", "sandbox", name)
		}
	}
}

// misleads says why the hosts file of a sandbox may be wrong: it is not started with it.
func (k *Keeper) misleads(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.misnamed[name]; err != nil {
		return fmt.Errorf("write names of sandboxes: %w", err)
	}
	return nil
}

// share is how much of its time the daemon writes hosts files at most: one of so many parts.
// There are as many files as sandboxes, each as long as there are others.
const share = 10

// renewNames writes all hosts files, if anything has changed since, or others may have
// changed them.
func (k *Keeper) renewNames(look bool) error {
	k.mu.Lock()
	k.added = map[netip.Addr]string{}
	k.mu.Unlock()
	records, err := k.records()
	if err != nil {
		return err
	}
	k.mu.Lock()
	said, shown, wait := k.said, k.shown, share*k.took-time.Since(k.renewed)
	k.mu.Unlock()
	now := sandboxes(records, said)
	if !look && reflect.DeepEqual(now, shown) {
		return nil
	}
	if wait > 0 {
		time.AfterFunc(wait, k.wake)
		return nil
	}
	began := time.Now()
	failed, err := k.writeNames("", func(had, now []byte) bool { return !bytes.Equal(had, now) })
	if err != nil {
		now = nil
	} else {
		k.cannotName(failed)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.shown, k.renewed, k.took = now, time.Now(), time.Since(began)
	if err == nil && len(failed) == 0 && k.owners != nil {
		// No file says anything of who had an address before.
		k.owners = ownersOf(records)
		maps.Copy(k.owners, k.added)
	}
	return err
}

// writeNames writes the hosts file of a sandbox, or of all if no name is given, if need says
// so from what the file has and what it is to have. It returns why one could not be written,
// by sandbox.
func (k *Keeper) writeNames(name string, need func(had, now []byte) bool) (failed map[string]error, err error) {
	// One at a time, from the look at the records on: who has looked before does not write
	// after somebody who has seen more.
	k.files.Lock()
	defer k.files.Unlock()
	records, err := k.records()
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	said := k.said
	k.mu.Unlock()
	files := names.NewFiles(directory(records, said))
	failed = map[string]error{}
	for _, r := range records {
		if name != "" && r.Name != name {
			continue
		}
		own := named(r, networkOf(r, said))
		now := files.Hosts(&own, strings.ToLower(hostname(r)))
		if err := k.writeHosts(r, now, need); err != nil {
			failed[r.Name] = fmt.Errorf("names for sandbox %s: %w", r.Name, err)
		}
	}
	return failed, nil
}

// writeHosts writes one file. Of a sandbox without the directory, that is not so far yet or
// has a root of its own, nothing is written.
func (k *Keeper) writeHosts(r *actual.Record, now []byte, need func(had, now []byte) bool) error {
	dir, err := k.namesOf(r.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	had, err := readHosts(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		had = nil // whatever is there is replaced
	}
	if !need(had, now) {
		return nil
	}
	// A power cut ends the sandboxes too.
	in := atomicfile.In{Dir: fsys.Of(dir)}
	err = crashpoint.Do(crashpoint.NamesWrite, func() error { return in.Publish(hostsFile, now, 0o644) })
	if err == nil || !names.Misleads(had, now) {
		return err
	}
	// Where there is no room, no file is better than one that leads to an address that
	// another sandbox is about to have: names are asked for then.
	if rerr := in.Remove(hostsFile); rerr != nil {
		return errors.Join(err, rerr)
	}
	k.log.Warn("names of a sandbox removed, which were not right any more and could not be written", "sandbox", r.Name, "err", err)
	return nil
}

func readHosts(dir *os.File) ([]byte, error) {
	f, err := untrusted.OpenRegular(int(dir.Fd()), hostsFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return dirfd.ReadRegular(f, 0, 2*names.MaxHosts)
}

// namesOf opens the directory that a sandbox is shown.
func (k *Keeper) namesOf(name string) (*os.File, error) {
	top, err := k.store.Dir(name)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	return untrusted.OpenDir(int(top.Fd()), gofer.NamesDir)
}

// sweepNames removes the temporary files that a killed daemon has left of hosts files.
func (k *Keeper) sweepNames() error {
	list, err := k.store.List()
	if err != nil {
		return fmt.Errorf("find sandboxes on networks: %w", err)
	}
	var all []string
	for _, r := range list.Records {
		all = append(all, r.Name)
	}
	for i := range list.Quarantined {
		all = append(all, list.Quarantined[i].Name)
	}
	var errs []error
	for _, name := range all {
		dir, err := k.namesOf(name)
		if err != nil {
			continue // it has none
		}
		_, err = atomicfile.SweepTemps(dir)
		errs = append(errs, err, dir.Close())
	}
	return errors.Join(errs...)
}

// hostname is what the sandbox is called inside. It was filled in before it went on record.
func hostname(r *actual.Record) string {
	var said struct {
		Spec struct {
			Hostname string `json:"hostname"`
		} `json:"spec"`
	}
	if json.Unmarshal(r.Spec, &said) != nil {
		return r.Name
	}
	return cmp.Or(said.Spec.Hostname, r.Name)
}
