// SPDX-License-Identifier: Apache-2.0

// Package doctor checks a host: what sandboxes need of it, and whether what is on record
// agrees with what runs. It changes nothing.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/programs"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired/trustedfile"
	"sandboxctl.dev/gofer"
	"sandboxctl.dev/launcher/built"
	"sandboxctl.dev/launcher/cgroup"
	"sandboxctl.dev/launcher/firewall/objects"
	"sandboxctl.dev/launcher/invariants"
	"sandboxctl.dev/launcher/links"
	"sandboxctl.dev/launcher/netns"
	"sandboxctl.dev/launcher/ondisk"
	"sandboxctl.dev/launcher/salvage"
)

// doctor is the verb in one run of the program.
type doctor struct{ *world.Host }

// finding is the result of one check.
type finding struct {
	Check string `json:"check"`
	// Level is ok, warning (something will be worse than it could be) or
	// error (sandboxes will not run).
	Level   string `json:"level"`
	Message string `json:"message"`
}

const (
	levelOK      = "ok"
	levelWarning = "warning"
	levelError   = "error"
)

// Command is the verb doctor.
func Command(h *world.Host) *cobra.Command {
	d := doctor{h}
	var output string
	var beside programs.Flags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check this host and what runs on it",
		Long: `Check what sandboxes need of this host, and whether what is on record agrees with
what runs. Nothing is changed. Exit code 1 if there is an error.`,
		Example: "  sandboxctl doctor",
		Args:    exit.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := exit.Format(output, "json"); err != nil {
				return err
			}
			findings := d.checkHost(cmd.Context(), &beside)
			findings = append(findings, d.checkState(cmd.Context())...)
			findings = append(findings, d.checkStrays()...)
			findings = append(findings, d.checkManifests())
			findings = append(findings, d.checkSecrets(cmd.Context())...)
			findings = append(findings, d.checkPolicy()...)
			findings = append(findings, d.checkLimits()...)
			findings = append(findings, d.checkImages(cmd.Context())...)
			findings = append(findings, d.checkVolumes()...)
			findings = append(findings, d.checkSnapshots()...)
			findings = append(findings, checkTimezone())
			findings = append(findings, d.checkClients()...)
			if err := d.print(findings, output); err != nil {
				return err
			}
			bad := 0
			for _, f := range findings {
				if f.Level == levelError {
					bad++
				}
			}
			if bad > 0 {
				return &exit.Error{Code: exit.Failure, Err: fmt.Errorf("%d of %d checks failed", bad, len(findings))}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	beside.Register(cmd.Flags())
	return cmd
}

func (d doctor) print(findings []finding, output string) error {
	if output == "json" {
		return show.JSON(d.Stdout, findings)
	}
	rows := make([][]string, len(findings))
	for i, f := range findings {
		rows[i] = []string{strings.ToUpper(f.Level), f.Check, show.Clean(f.Message)}
	}
	return show.Table(d.Stdout, nil, rows)
}

// check makes a finding of what a probe returned.
func check(name, good string, err error) finding {
	if err != nil {
		return finding{name, levelError, err.Error()}
	}
	return finding{name, levelOK, good}
}

func (d doctor) checkHost(ctx context.Context, beside *programs.Flags) []finding {
	var out []finding
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		out = append(out, finding{"kernel", levelOK, unix.ByteSliceToString(uts.Release[:])})
	}
	if os.Geteuid() != 0 {
		out = append(out, finding{"user", levelError, "not root: the daemon must be"})
	}
	out = append(out, check("build", "without cgo", gofer.CanRun()), checkIdentity(), checkMountAPI())
	sentry, goferProgram, image := beside.Check(ctx)
	out = append(out, check("sentry", sentry.String(), sentry.Err), check("gofer", goferProgram.String(), goferProgram.Err), check("image program", image.String(), image.Err))
	out = append(out, checkNamespaces(ctx), checkBandwidth(), checkConnections())
	return append(out, checkCgroups()...)
}

func checkIdentity() finding {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return finding{"process identity", levelError, fmt.Sprintf("pidfd_open: %v; Linux 5.3 or later is needed", err)}
	}
	defer unix.Close(fd)
	id, err := process.Identify(fd, os.Getpid())
	switch {
	case err != nil:
		return finding{"process identity", levelError, err.Error()}
	case id.Inode == 0:
		return finding{"process identity", levelWarning, "this kernel has no pidfs (Linux 6.9): a reused pid is told apart by its start time only, to 10 ms"}
	}
	return finding{"process identity", levelOK, "pidfs inodes"}
}

func checkMountAPI() finding {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return finding{"mounts", levelError, fmt.Sprintf("open_tree: %v; Linux 5.12 or later is needed", err)}
	}
	unix.Close(fd)
	err = unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{})
	if errors.Is(err, unix.ENOSYS) {
		return finding{"mounts", levelError, "mount_setattr is missing; Linux 5.12 or later is needed"}
	}
	return finding{"mounts", levelOK, "open_tree, move_mount, mount_setattr"}
}

// checkNamespaces starts a process in new namespaces of every kind that a
// sandbox gets.
func checkNamespaces(ctx context.Context) finding {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "--help")
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
	}
	err := cmd.Run()
	switch {
	case err == nil:
		return finding{"namespaces", levelOK, "user, mount, pid, ipc, uts, network"}
	case errors.Is(err, unix.EPERM):
		return finding{"namespaces", levelError, fmt.Sprintf("%v: user namespaces are forbidden here (in a chroot? by a container or a security module?)", err)}
	case errors.Is(err, unix.ENOSPC):
		return finding{"namespaces", levelError, fmt.Sprintf("%v: a limit of sysctl user.max_*_namespaces is reached", err)}
	}
	return finding{"namespaces", levelError, err.Error()}
}

// checkBandwidth says whether network.bandwidth is possible here.
func checkBandwidth() finding {
	if err := links.CanShape(); err != nil {
		return finding{"network.bandwidth", levelWarning, fmt.Sprintf("can't be limited: %v; sandboxes that ask for it are not started", err)}
	}
	return finding{"network.bandwidth", levelOK, "tbf"}
}

// checkConnections says whether the kernel forgets closed connections of sandboxes soon. It is
// tried in a namespace of its own.
func checkConnections() finding {
	ns, err := netns.New()
	if err == nil {
		defer ns.Close()
		timeouts := objects.TimeoutsOf(objects.Times{}, objects.Kind)
		err = ns.Do(timeouts.Probe)
	}
	if err != nil {
		return finding{"network.maxConnections", levelWarning, fmt.Sprintf("closed connections of sandboxes count for as long as the kernel keeps them, two minutes in most cases: %v", err)}
	}
	return finding{"network.maxConnections", levelOK, fmt.Sprintf("closed connections count for %s", objects.Closed)}
}

func checkCgroups() []finding {
	host, err := cgroup.Detect()
	if err != nil {
		return []finding{{"cgroups", levelError, err.Error()}}
	}
	out := []finding{{"cgroups", levelOK, host.Version()}}
	for _, u := range host.Unenforced() {
		out = append(out, finding{"resources." + u.Resource, levelWarning, "can't be limited: " + u.Why})
	}
	return out
}

// checkLimits tells what a sandbox may have whose manifest says nothing of it. A
// policy that can't be read is another check's.
func (d doctor) checkLimits() []finding {
	policy, err := d.HostPolicy()
	if err != nil {
		return nil
	}
	usual, most := policy.DefaultResources, policy.MaxResources
	return []finding{{"limits", levelOK, fmt.Sprintf("a sandbox has memory %s and pids %d by default, and at most %s and %d", usual.Memory, usual.PIDs, most.Memory, most.PIDs)}}
}

// checkState compares records with processes.
func (d doctor) checkState(ctx context.Context) []finding {
	store, err := actual.OpenStoreReadOnly(d.State)
	if errors.Is(err, actual.ErrNoState) {
		return []finding{{"state", levelOK, "nothing has run with " + d.State + " yet"}}
	}
	if err != nil {
		return []finding{{"state", levelError, err.Error()}}
	}
	defer store.Close()
	w, err := d.Once(ctx)
	if err != nil {
		return []finding{{"state", levelError, err.Error()}}
	}
	out := []finding{{"state", levelOK, fmt.Sprintf("%d sandboxes on record, %d ready", len(w.In.Actual.Sandboxes), w.Summary.Ready)}}
	if w.Alive {
		out = append(out, finding{"daemon", levelOK, fmt.Sprintf("pid %d, version %s", w.Daemon.Process.PID, w.Daemon.Version)})
	} else {
		out = append(out, finding{"daemon", levelWarning, "not running: manifests are not applied until it starts"})
	}
	out = append(out, d.checkWarm(store)...)
	switch {
	case w.Summary.Complete:
		out = append(out, finding{"manifests", levelOK, fmt.Sprintf("%d sandboxes in %s", len(w.In.Desired.Entries), d.Manifests)})
	default:
		out = append(out, finding{"manifests", levelWarning, w.Summary.Reason + ": " + w.Summary.Message})
	}
	if why := w.Summary.DiskPressure; why != "" {
		out = append(out, finding{"disk", levelError, "DiskPressure: " + why})
	} else {
		out = append(out, checkDisk(store))
	}
	for i := range w.In.Actual.Quarantined {
		h := &w.In.Actual.Quarantined[i]
		out = append(out, finding{"record of " + h.Name, levelError, h.Reason + ": " + h.Message + "; " + w.EvidenceText(h)})
	}
	out = append(out, checkSetups(store, w.In.Actual.Sandboxes)...)
	out = append(out, d.checkCNI(w.In.Actual.Sandboxes)...)
	out = append(out, checkNames(ctx, store.Marker(), w.In.Actual.Sandboxes)...)
	return append(out, checkInvariants(ctx, store)...)
}

// checkSecrets finds the manifest files with secrets that others may read.
func (d doctor) checkSecrets(ctx context.Context) (out []finding) {
	w, err := d.OnceUnjudged(ctx)
	if err != nil {
		return nil // told elsewhere
	}
	for _, warn := range w.In.Desired.Warnings {
		if warn.Exposed {
			out = append(out, finding{"secrets", levelWarning, warn.Error()})
		}
	}
	return out
}

// checkSetups looks for sandboxes that can't be told any more how they were built.
func checkSetups(store *actual.Store, sandboxes []actual.Observed) (out []finding) {
	for i := range sandboxes {
		if err := built.Check(store, sandboxes[i].Record); err != nil {
			out = append(out, finding{"set-up of " + sandboxes[i].Record.Name, levelWarning, err.Error() + "; until then exec and checkpoint are refused"})
		}
	}
	return out
}

// checkStrays finds the sentries and gofers on this host, and what is in the cgroups
// of sandboxes, that no state directory knows: one that was removed takes all that
// is known of what runs with it.
func (d doctor) checkStrays() []finding {
	found, err := salvage.SearchHost()
	if err != nil {
		return []finding{{"processes", levelError, err.Error()}}
	}
	var out []finding
	paths := found.States()
	if !slices.Contains(paths, d.StatePath()) {
		paths = append(paths, d.StatePath())
	}
	for _, path := range paths {
		strays, why, err := straysOf(path, found)
		if err != nil {
			out = append(out, finding{"processes", levelWarning, fmt.Sprintf("whether the processes of the state directory %s are on record is not known: %v", path, err)})
		}
		level := levelWarning // another daemon's
		if path == d.StatePath() {
			level = levelError
		}
		for i := range strays {
			m := &strays[i]
			if m.State == "" {
				if path == d.StatePath() { // it is told once
					out = append(out, finding{"processes", levelWarning, fmt.Sprintf("the %s of %s lives, no record of %s knows it, and nothing says of which state directory it is: if it is of none, end it", m, m.Sandbox, path)})
				}
				continue
			}
			out = append(out, finding{"processes", level, fmt.Sprintf("the %s of %s lives and no record knows it: %s; put the state directory back, or end the process", m, m.Sandbox, why)})
		}
	}
	if len(out) == 0 {
		out = append(out, finding{"processes", levelOK, fmt.Sprintf("each of the %d sentries and gofers on this host is on record", found.Processes())})
	}
	return out
}

// straysOf are those of the processes of a state directory that it does not know,
// and why that is.
func straysOf(path string, found *salvage.Search) ([]salvage.Marked, string, error) {
	store, err := actual.OpenStoreReadOnly(path)
	if errors.Is(err, actual.ErrNoState) {
		all, err := found.Of(path)
		return all, "there is no state directory " + path, err
	}
	if err != nil {
		return nil, "", err
	}
	defer store.Close()
	if store.Marker() != path {
		all, err := found.Of(path)
		return all, "the state directory " + path + " leads elsewhere now", err
	}
	strays, err := found.Strays(store)
	return strays, "it is not in the state directory " + path, err
}

// checkDisk says how much room there is.
func checkDisk(store *actual.Store) finding {
	disk, err := store.Disk()
	if err != nil {
		return finding{"disk", levelError, err.Error()}
	}
	list, err := store.List()
	if err != nil {
		return finding{"disk", levelError, err.Error()}
	}
	f := finding{"disk", levelOK, fmt.Sprintf("%d MiB free for the state; logs may take %d MiB together and stop at %d MiB free", disk.Free>>20, disk.MostLogs()>>20, disk.LeastFreeForLogs()>>20)}
	if left := ondisk.Left(ondisk.Writers(store, list), ""); left > 0 {
		f.Message += fmt.Sprintf("; sandboxes may still write %d MiB to the disk (emptyDir, overlay: disk)", left>>20)
		if uint64(left)+disk.LeastFreeForLogs() > disk.Free {
			f.Level, f.Message = levelWarning, f.Message+", for which there is no room: make some, or their writes fail"
		}
	}
	return f
}

// checkInvariants looks for what no record answers for. It is a look, for people:
// nobody is signalled on its word.
func checkInvariants(ctx context.Context, store *actual.Store) []finding {
	found, err := invariants.Check(ctx, store, invariants.Options{})
	if err != nil {
		return []finding{{"leftovers", levelError, err.Error()}}
	}
	if len(found) == 0 {
		return []finding{{"leftovers", levelOK, "none: every process, cgroup, mount and file of this state directory is on record"}}
	}
	var out []finding
	for _, v := range found {
		f := finding{string(v.Kind), levelError, v.Message}
		switch v.Kind {
		case invariants.LeftoverDirectory, invariants.LeftoverTemp, invariants.LeftoverTrash, invariants.LeftoverVolume, invariants.LeftoverSnapshot:
			// Of a program that was killed: the next daemon removes it.
			f.Level = levelWarning
		case invariants.LeftoverImage, invariants.MissingImage:
			continue // the look at the images tells
		default:
		}
		out = append(out, f)
	}
	return out
}

// checkManifests looks at who may say what runs here.
func (d doctor) checkManifests() finding {
	dir, err := trustedfile.Open(d.Manifests)
	if errors.Is(err, fs.ErrNotExist) {
		return finding{"manifests directory", levelWarning, d.Manifests + " does not exist"}
	}
	if err != nil {
		return finding{"manifests directory", levelError, err.Error()}
	}
	defer dir.Close()
	return finding{"manifests directory", levelOK, d.Manifests + ": nobody but root may change what is in it"}
}
