// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/sentry/control"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/specutils"

	"sandboxctl.dev/launcher/wire"
)

// Each message the launcher sends or reads must decode, without a field too
// many, as gVisor's own type does: an upgrade that changes the wire fails here.
func TestWire(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ ours, theirs any }{
		"signal": {&wire.SignalArgs{CID: "c", Signo: 15, PID: 3, Mode: wire.SignalAllProcesses}, &boot.SignalArgs{}},
		"wait":   {&wire.WaitPIDArgs{PID: 3, CID: "c"}, &boot.WaitPIDArgs{}},
		"exec": {&wire.ExecArgs{
			Filename: "f", Argv: []string{"a"}, Envv: []string{"e"}, WorkingDirectory: "/", KUID: 1, KGID: 2, ExtraKGIDs: []uint32{3},
			NoNewPrivileges: true, Capabilities: &wire.TaskCapabilities{PermittedCaps: 1, InheritableCaps: 2, EffectiveCaps: 4, BoundingCaps: 8, AmbientCaps: 16},
			StdioIsPty: true, GuestFDs: []int{0, 1}, ContainerID: "c",
		}, &control.ExecArgs{}},
		"checkpoint": {&wire.CheckpointArgs{Metadata: wire.StateForm(true), Resume: true}, &control.SaveOpts{}},
		"restore":    {&wire.RestoreArgs{}, &boot.RestoreOpts{}},
		"session":    {new(wire.Session(wire.SessionSink)), &boot.CreateTraceSessionArgs{}},
		"forward":    {new(wire.Forward(80)), &boot.CreateTraceSessionArgs{}},
		"copy out":   {new(wire.CopyOut("/a", true)), &boot.CreateTraceSessionArgs{}},
		"copy in":    {new(wire.CopyIn("/a", true)), &boot.CreateTraceSessionArgs{}},
		"read":       {&wire.ReadArgs{ContainerID: "c", Path: "/a", Size: 7}, &control.ReadOpts{}},
		"network":    {new(wire.Loopback()), &boot.CreateLinksAndRoutesArgs{}},
		"create":     {&wire.CreateArgs{CID: "c"}, &boot.CreateArgs{}},
		"links": {&wire.NetworkArgs{
			FDBasedLinks: []wire.FDBasedLink{{
				Name: "eth0", MTU: 1500, Addresses: []wire.IPWithPrefix{{Address: net.IPv4(10, 0, 0, 2).To4(), PrefixLen: 24}}, QDisc: wire.QDiscFIFO,
				Routes:     []wire.Route{{Destination: net.IPNet{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(24, 32)}, MTU: 1400}},
				GSOMaxSize: wire.GVisorGSOMaxSize, GVisorGSOEnabled: true, RXChecksumOffload: true, LinkAddress: net.HardwareAddr{2, 0, 0, 0, 0, 1},
				Neighbors: []wire.Neighbor{{IP: net.IPv4(10, 0, 0, 1).To4(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 2}}}, NumChannels: 1,
			}},
			Defaultv4Gateway: wire.DefaultRoute{Name: "eth0", Route: wire.Route{
				Destination: net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Gateway: net.IPv4(10, 0, 0, 1).To4(),
			}},
			Defaultv6Gateway: wire.DefaultRoute{Name: "eth0", Route: wire.Route{
				Destination: net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}, Gateway: net.ParseIP("fd00::1"),
			}},
			IsRestore: true,
		}, &boot.CreateLinksAndRoutesArgs{}},
	} {
		b, err := json.Marshal(c.ours)
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(strings.NewReader(string(b)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(c.theirs); err != nil {
			t.Errorf("%s: gVisor does not understand %s: %v", name, b, err)
			continue
		}
		// And back: every value has arrived where it belongs.
		back, err := json.Marshal(c.theirs)
		if err != nil {
			t.Fatal(err)
		}
		again := reflect.New(reflect.TypeOf(c.ours).Elem()).Interface()
		if err := json.Unmarshal(back, again); err != nil {
			t.Fatal(err)
		}
		if text, err := json.Marshal(again); err != nil || string(text) != string(b) {
			t.Errorf("%s: sent\n%s\narrived\n%s", name, b, text)
		}
	}
}

// What the sentry answers decodes into our types.
func TestWireReplies(t *testing.T) {
	t.Parallel()
	theirs, err := json.Marshal([]*control.Process{{UID: 1, PID: 2, PPID: 3, TTY: "?", Cmd: "sh"}})
	if err != nil {
		t.Fatal(err)
	}
	var ps []wire.Process
	dec := json.NewDecoder(strings.NewReader(string(theirs)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&ps); err != nil || ps[0].UID != 1 || ps[0].PID != 2 || ps[0].PPID != 3 || ps[0].Cmd != "sh" {
		t.Errorf("processes: %+v %v", ps, err)
	}
	out := boot.EventOut{ContainerUsage: map[string]uint64{"c": 7}}
	out.Event.Data.Memory.Usage.Usage = 5
	out.Event.Data.Pids.Current = 4
	if theirs, err = json.Marshal(out); err != nil {
		t.Fatal(err)
	}
	var e wire.EventOut
	dec = json.NewDecoder(strings.NewReader(string(theirs)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil || e.ContainerUsage["c"] != 7 || e.Event.Data.Memory.Usage.Usage != 5 || e.Event.Data.Pids.Current != 4 {
		t.Errorf("event: %+v %v", e, err)
	}
}

func TestWireNames(t *testing.T) {
	t.Parallel()
	for ours, theirs := range map[string]string{
		wire.MethodStartRoot: boot.ContMgrRootContainerStart, wire.MethodExecuteAsync: boot.ContMgrExecuteAsync,
		wire.MethodWait: boot.ContMgrWait, wire.MethodWaitPID: boot.ContMgrWaitPID, wire.MethodProcesses: boot.ContMgrProcesses,
		wire.MethodEvent: boot.ContMgrEvent, wire.MethodSignal: boot.ContMgrSignal, wire.MethodSetNetwork: boot.ContMgrSetNetworkArgs,
		wire.MethodRuntimeState: boot.ContMgrContainerRuntimeState, wire.MethodSession: boot.ContMgrCreateTraceSession, wire.MethodRead: boot.FsRead,
	} {
		if ours != theirs {
			t.Errorf("%s is %s in gVisor", ours, theirs)
		}
	}
	for ours, theirs := range map[int]boot.SignalDeliveryMode{
		wire.SignalProcess: boot.DeliverToProcess, wire.SignalAllProcesses: boot.DeliverToAllProcesses,
		wire.SignalForegroundProcessGroup: boot.DeliverToForegroundProcessGroup, wire.SignalProcessGroup: boot.DeliverToProcessGroup,
	} {
		if ours != int(theirs) {
			t.Errorf("signal mode %d is %d in gVisor", ours, theirs)
		}
	}
	for ours, theirs := range map[int]boot.ContainerRuntimeState{
		wire.StateInvalid: boot.RuntimeStateInvalid, wire.StateCreating: boot.RuntimeStateCreating,
		wire.StateRunning: boot.RuntimeStateRunning, wire.StateStopped: boot.RuntimeStateStopped,
	} {
		if ours != int(theirs) {
			t.Errorf("state %d is %d in gVisor", ours, theirs)
		}
	}
	var lo boot.LoopbackLink
	b, err := json.Marshal(wire.Loopback().LoopbackLinks[0])
	if err != nil || json.Unmarshal(b, &lo) != nil {
		t.Fatal(err)
	}
	want := boot.DefaultLoopbackLink
	if lo.Name != want.Name || len(lo.Addresses) != len(want.Addresses) || len(lo.Routes) != len(want.Routes) || !lo.Addresses[0].Address.Equal(net.IPv4(127, 0, 0, 1)) {
		t.Errorf("loopback is %+v, gVisor's %+v", lo, want)
	}
}

// The binary answers the handshake, and refuses to be run by hand.
func TestBinary(t *testing.T) {
	t.Parallel()
	bin := os.Getenv("SANDBOXCTL_BIN")
	if bin == "" {
		bin = t.TempDir()
		cmd := exec.Command("go", "build", "-o", bin, ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	path := filepath.Join(bin, "sandboxctl-sentry")
	out, err := exec.Command(path, "version").Output()
	protocol, gvisor, ok := wire.ParseHandshake("sandboxctl-sentry", string(out))
	if err != nil || !ok || protocol != wire.Protocol || !strings.HasPrefix(gvisor, "v0") {
		t.Errorf("version: %q %v", out, err)
	}
	for _, args := range [][]string{nil, {"boot"}, {"nonsense"}, {"--nonsense"}} {
		if out, err := exec.Command(path, args...).CombinedOutput(); err == nil {
			t.Errorf("%v: it ran: %s", args, out)
		}
	}
	// A launcher that dies before it has opened the gate leaves nothing.
	cmd := exec.Command(path, "--gate-fd=3", "boot", "--spec-fd=4", "--controller-fd=5", "--start-sync-fd=6", "x")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{r}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != wire.ExitGateClosed {
		t.Errorf("gate closed: %v", err)
	}
}

// What starts a container beside the first one is what gVisor reads, with the configuration
// that a sentry tells of itself; and the numbers of layers are gVisor's.
func TestWireSubcontainer(t *testing.T) {
	t.Parallel()
	const flag = "lisafs:memory:size=4096,lisafs:none,erofs:memory,erofs:none"
	mounts, err := wire.MountConfs(flag)
	if err != nil {
		t.Fatal(err)
	}
	_, flags, err := parseOptions([]string{"sandboxctl-sentry", "--network=none", "--oci-seccomp=true", "--overlay2=none"})
	if err != nil {
		t.Fatal(err)
	}
	conf, err := config.NewFromFlags(flags)
	if err != nil {
		t.Fatal(err)
	}
	said, err := json.Marshal(conf)
	if err != nil || len(said) > wire.MaxConf {
		t.Fatalf("%d bytes: %v", len(said), err)
	}
	b, err := json.Marshal(wire.StartArgs{Spec: json.RawMessage(`{"ociVersion":"1.0.2","hostname":"x"}`), Conf: said, CID: "c", GoferMountConfs: mounts, IsRootfsUpperTarFilePresent: true})
	if err != nil {
		t.Fatal(err)
	}
	var got boot.StartArgs
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if (*specutils.GoferMountConfFlags)(&got.GoferMountConfs).String() != flag || got.CID != "c" || got.Spec.Hostname != "x" || !got.IsRootfsUpperTarFilePresent {
		t.Errorf("%+v", got)
	}
	if got.Conf.Network != conf.Network || !got.Conf.OCISeccomp || got.Conf.Platform != conf.Platform {
		t.Errorf("%+v", got.Conf)
	}
}
