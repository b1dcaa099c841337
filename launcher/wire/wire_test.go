// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"math"
	"net"
	"reflect"
	"strings"
	"testing"
)

// The JSON of each message, as a sentry that runs now understands it: it may
// have been started by an older sandboxctl.
func TestMessages(t *testing.T) {
	t.Parallel()
	for want, msg := range map[string]any{
		`{"CID":"c","Signo":15,"PID":3,"Mode":1}`:                       &SignalArgs{CID: "c", Signo: 15, PID: 3, Mode: SignalAllProcesses},
		`{"PID":3,"CID":"c"}`:                                           &WaitPIDArgs{PID: 3, CID: "c"},
		`{"metadata":{"compression":"flate-best-speed"},"Resume":true}`: &CheckpointArgs{Metadata: StateForm(true), Resume: true},
		`{"filename":"","argv":["a"],"envv":["e"],"wd":"/","KUID":1,"KGID":2,"ExtraKGIDs":[3],"NoNewPrivileges":true,` +
			`"Capabilities":{"PermittedCaps":1,"InheritableCaps":2,"EffectiveCaps":4,"BoundingCaps":8,"AmbientCaps":16},` +
			`"StdioIsPty":true,"GuestFDs":[0,1],"ContainerID":"c"}`: &ExecArgs{
			Argv: []string{"a"}, Envv: []string{"e"}, WorkingDirectory: "/", KUID: 1, KGID: 2, ExtraKGIDs: []uint32{3}, NoNewPrivileges: true,
			Capabilities: &TaskCapabilities{PermittedCaps: 1, InheritableCaps: 2, EffectiveCaps: 4, BoundingCaps: 8, AmbientCaps: 16},
			StdioIsPty:   true, GuestFDs: []int{0, 1}, ContainerID: "c",
		},
		`{"uid":1,"pid":2,"ppid":3,"pgid":4,"threads":[5],"c":6,"tty":"?","stime":"s","time":"t","cmd":"sh"}`: &Process{
			UID: 1, PID: 2, PPID: 3, PGID: 4, Threads: []int32{5}, C: 6, TTY: "?", STime: "s", Time: "t", Cmd: "sh",
		},
		`{"LoopbackLinks":[{"Name":"lo","Addresses":[{"Address":"127.0.0.1","PrefixLen":8},{"Address":"::1","PrefixLen":128}],` +
			`"Routes":[{"Destination":{"IP":"127.0.0.0","Mask":"/wAAAA=="}},{"Destination":{"IP":"::1","Mask":"/////////////////////w=="}}]}]}`: new(Loopback()),
		`{"LoopbackLinks":null,"FDBasedLinks":[{"Name":"eth0","MTU":1500,"Addresses":[{"Address":"10.0.0.2","PrefixLen":24}],` +
			`"Routes":[{"Destination":{"IP":"10.0.0.0","Mask":"////AA=="}}],"GSOMaxSize":65536,"GVisorGSOEnabled":true,"RXChecksumOffload":true,` +
			`"LinkAddress":"AgAAAAAB","QDisc":1,"Neighbors":[{"IP":"10.0.0.1","HardwareAddr":"AgAAAAAC"}],"NumChannels":1}],` +
			`"Defaultv4Gateway":{"Route":{"Destination":{"IP":"0.0.0.0","Mask":"AAAAAA=="},"Gateway":"10.0.0.1","MTU":1400},"Name":"eth0"}}`: sampleNetwork(),
	} {
		b, err := json.Marshal(msg)
		if err != nil || string(b) != want {
			t.Errorf("%T is\n%s %v, expected\n%s", msg, b, err, want)
			continue
		}
		back := reflect.New(reflect.TypeOf(msg).Elem()).Interface()
		if err := json.Unmarshal(b, back); err != nil {
			t.Errorf("%T: %v", msg, err)
		}
		if again, err := json.Marshal(back); err != nil || string(again) != want {
			t.Errorf("%T comes back as %s %v", msg, again, err)
		}
	}
}

func sampleNetwork() *NetworkArgs {
	ip := func(s string) net.IP { return net.ParseIP(s).To4() }
	return &NetworkArgs{
		FDBasedLinks: []FDBasedLink{{
			Name: "eth0", MTU: 1500, Addresses: []IPWithPrefix{{ip("10.0.0.2"), 24}}, QDisc: QDiscFIFO, NumChannels: 1,
			Routes:     []Route{{Destination: net.IPNet{IP: ip("10.0.0.0"), Mask: net.CIDRMask(24, 32)}}},
			GSOMaxSize: GVisorGSOMaxSize, GVisorGSOEnabled: true, RXChecksumOffload: true, LinkAddress: net.HardwareAddr{2, 0, 0, 0, 0, 1},
			Neighbors: []Neighbor{{ip("10.0.0.1"), net.HardwareAddr{2, 0, 0, 0, 0, 2}}},
		}},
		Defaultv4Gateway: DefaultRoute{Name: "eth0", Route: Route{
			Destination: net.IPNet{IP: ip("0.0.0.0"), Mask: net.CIDRMask(0, 32)}, Gateway: ip("10.0.0.1"), MTU: 1400,
		}},
	}
}

// A reply of a sentry of another version: what is not known is passed over,
// what is missing is zero.
func TestReplies(t *testing.T) {
	t.Parallel()
	var e EventOut
	reply := `{"event":{"type":"stats","id":"c","data":{"cpu":{"usage":{"total":7,"percpu":[1,2]}},"memory":{"usage":{"usage":5},"new":1},` +
		`"pids":{"current":4},"network_interfaces":[{"Name":"lo","RxBytes":9}]}},"containerUsage":{"c":7},"more":{}}`
	if err := json.Unmarshal([]byte(reply), &e); err != nil {
		t.Fatal(err)
	}
	d := e.Event.Data
	if d.CPU.Usage.Total != 7 || d.Memory.Usage.Usage != 5 || d.Pids.Current != 4 || len(d.NetworkInterfaces) != 1 || d.NetworkInterfaces[0].RxBytes != 9 || e.ContainerUsage["c"] != 7 {
		t.Errorf("%+v", e)
	}
	var empty EventOut
	if err := json.Unmarshal([]byte(`{}`), &empty); err != nil || empty.Event.Data.Memory.Usage.Usage != 0 || empty.ContainerUsage["c"] != 0 {
		t.Errorf("%+v %v", empty, err)
	}
}

// A sandbox without a network reaches itself and nothing else.
func TestLoopback(t *testing.T) {
	t.Parallel()
	args := Loopback()
	if len(args.LoopbackLinks) != 1 {
		t.Fatalf("%d links", len(args.LoopbackLinks))
	}
	lo := args.LoopbackLinks[0]
	seen := map[bool]int{}
	for i, a := range lo.Addresses {
		if !a.Address.IsLoopback() {
			t.Errorf("%s is not its own", a.Address)
		}
		// gVisor tells the families apart by the length.
		v4 := len(a.Address) == net.IPv4len
		seen[v4]++
		dst := lo.Routes[i].Destination
		if ones, bits := dst.Mask.Size(); ones != a.PrefixLen || bits != 8*len(a.Address) || len(dst.IP) != len(a.Address) {
			t.Errorf("route %s (%d bytes) does not go with %s/%d", &dst, len(dst.IP), a.Address, a.PrefixLen)
		}
		if !dst.Contains(a.Address) || dst.Contains(net.IPv4(10, 0, 0, 1)) || dst.Contains(net.ParseIP("fe80::1")) {
			t.Errorf("route %s", &dst)
		}
	}
	if seen[true] != 1 || seen[false] != 1 || len(lo.Routes) != 2 {
		t.Errorf("addresses %v, routes %v", lo.Addresses, lo.Routes)
	}
	// Each caller has its own.
	lo.Addresses[0].Address[0] = 10
	if !Loopback().LoopbackLinks[0].Addresses[0].Address.IsLoopback() {
		t.Error("one caller changes what the next one gets")
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, f := range []string{FlagGateFD, FlagExitFD, FlagUID, FlagAttempt, FlagContainer, FlagState, FlagNobody, FlagErrnos, FlagDisk, FlagLogLevel} {
		if f == "" || strings.ContainsAny(f, "= ") || strings.HasPrefix(f, "-") || seen[f] {
			t.Errorf("flag %q", f)
		}
		seen[f] = true
	}
	for _, m := range []string{
		MethodStartRoot, MethodExecuteAsync, MethodWait, MethodWaitPID, MethodProcesses, MethodEvent, MethodSignal, MethodRuntimeState, MethodSetNetwork,
	} {
		if !strings.HasPrefix(m, "containerManager.") || seen[m] {
			t.Errorf("method %q", m)
		}
		seen[m] = true
	}
	codes := map[int]bool{}
	for _, c := range []int{ExitOK, ExitUsage, ExitGateClosed, ExitBootFailed} {
		if c < 0 || c > 255 || codes[c] {
			t.Errorf("exit code %d", c)
		}
		codes[c] = true
	}
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	line := Handshake("sandboxctl-x", 7, "v1.2-3")
	if n, v, ok := ParseHandshake("sandboxctl-x", line+"\n"); n != 7 || v != "v1.2-3" || !ok {
		t.Errorf("%q is %d %q %v", line, n, v, ok)
	}
	for _, bad := range []string{
		"", "\n", "sandboxctl-x", "sandboxctl-x protocol=7", "sandboxctl-x protocol= gvisor=v1", "sandboxctl-x protocol=7 gvisor=", "sandboxctl-x protocol=x gvisor=v1",
		"sandboxctl-y protocol=7 gvisor=v1", " sandboxctl-x protocol=7 gvisor=v1", "sandboxctl-xy protocol=7 gvisor=v1", "sandboxctl-x protocol=7 gvisor=v1 more",
		"sandboxctl-x protocol=7 gvisor=v1\nmore", "usage: sandboxctl-x protocol=7 gvisor=v1", "sandboxctl-x protocol=99999999999999999999 gvisor=v1",
	} {
		if n, v, ok := ParseHandshake("sandboxctl-x", bad); ok {
			t.Errorf("%q is %d %q", bad, n, v)
		}
	}
	if GVisorVersion() == "" {
		t.Error("no version of gVisor, and not that it is unknown")
	}
}

// What the launcher gives is what the sentry takes, and nothing else is taken.
func TestDiskFiles(t *testing.T) {
	t.Parallel()
	var files DiskFiles
	for _, f := range []DiskFile{{FD: 7, Size: 1}, {FD: 300, Size: 1 << 62}} {
		if err := files.Set(f.String()); err != nil || files[len(files)-1] != f {
			t.Errorf("%v became %v: %v", f, files, err)
		}
	}
	if files.String() != "7:1,300:4611686018427387904" {
		t.Error(files.String())
	}
	for _, s := range []string{"", "7", "7:", ":7", "-1:7", "7:0", "7:-1", "7:1:1", "99999999999:1", "a:b", "7:9223372036854775808"} {
		if err := new(DiskFiles).Set(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
	for size, most := range map[int64]int64{1: 2 << 30, 1 << 29: 2 << 30, 1<<29 + 1: 3 << 30, 1 << 30: 3 << 30, 16 << 30: 33 << 30} {
		if got := (DiskFile{Size: size}).Limit(); got != most {
			t.Errorf("a file for %d bytes may become %d long, expected %d", size, got, most)
		}
	}
	for size, want := range map[int64]int64{1: 4096, 4096: 4096, 4097: 8192, math.MaxInt64: math.MaxInt64 &^ 4095} {
		if got := (DiskFile{Size: size}).InPages(); got != want {
			t.Errorf("%d bytes are %d in pages, expected %d", size, got, want)
		}
	}
}
