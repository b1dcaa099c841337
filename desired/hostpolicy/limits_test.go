// SPDX-License-Identifier: Apache-2.0

package hostpolicy

import (
	"fmt"
	"strings"
	"testing"

	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/scalar"
)

// What is in force where a policy file says something, and where it does not.
func TestPolicyLimits(t *testing.T) {
	t.Parallel()
	const gi = scalar.Bytes(1 << 30)
	for name, c := range map[string]struct {
		def, most, wantDef, wantMost desired.Resources
		memory                       scalar.Bytes
	}{
		"built-in":               {memory: 8 * gi, wantDef: desired.Resources{Memory: 4 * gi, PIDs: 2048}, wantMost: desired.Resources{Memory: 8 * gi, PIDs: 8192}},
		"tiny host":              {memory: 48 << 20, wantDef: desired.Resources{Memory: 32 << 20, PIDs: 2048}, wantMost: desired.Resources{Memory: 48 << 20, PIDs: 8192}},
		"unknown memory":         {wantDef: desired.Resources{PIDs: 2048}, wantMost: desired.Resources{PIDs: 8192}},
		"low most":               {memory: 8 * gi, most: desired.Resources{CPU: 500, Memory: gi, PIDs: 100}, wantDef: desired.Resources{CPU: 500, Memory: gi, PIDs: 100}, wantMost: desired.Resources{CPU: 500, Memory: gi, PIDs: 100}},
		"high most":              {memory: 8 * gi, most: desired.Resources{Memory: 64 * gi, PIDs: 100000}, wantDef: desired.Resources{Memory: 4 * gi, PIDs: 2048}, wantMost: desired.Resources{Memory: 64 * gi, PIDs: 100000}},
		"low default":            {memory: 8 * gi, def: desired.Resources{CPU: 250, Memory: gi, PIDs: 100}, wantDef: desired.Resources{CPU: 250, Memory: gi, PIDs: 100}, wantMost: desired.Resources{CPU: 250, Memory: 8 * gi, PIDs: 8192}},
		"default above the most": {memory: 8 * gi, def: desired.Resources{Memory: 9 * gi, PIDs: 10000}, wantDef: desired.Resources{Memory: 9 * gi, PIDs: 10000}, wantMost: desired.Resources{Memory: 9 * gi, PIDs: 10000}},
		"both":                   {memory: 8 * gi, def: desired.Resources{Memory: gi, PIDs: 100}, most: desired.Resources{Memory: 2 * gi, PIDs: 200}, wantDef: desired.Resources{Memory: gi, PIDs: 100}, wantMost: desired.Resources{Memory: 2 * gi, PIDs: 200}},
	} {
		p := &Policy{DefaultResources: c.def, MaxResources: c.most}
		p.fillLimits(c.memory)
		if p.DefaultResources != c.wantDef || p.MaxResources != c.wantMost || p.LogSize != BuiltInLogSize {
			t.Errorf("%s: %+v %+v %v, expected %+v %+v", name, p.DefaultResources, p.MaxResources, p.LogSize, c.wantDef, c.wantMost)
		}
	}
}

// Nobody has to write a policy or a limit to have one.
func TestDefaultPolicyLimits(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]*Policy{"built-in": Default(), "an empty file": policyOf(t), "a file about something else": policyOf(t, "capabilities: [BPF]")} {
		d, m := p.DefaultResources, p.MaxResources
		if d.PIDs < desired.MinPIDs || d.Memory < desired.MinMemory || m.PIDs < d.PIDs || m.Memory < d.Memory || m.Memory > hostMemory() || p.LogSize <= 0 {
			t.Errorf("%s: default %+v, at most %+v, logs %v", name, d, m, p.LogSize)
		}
		for asked, ok := range map[desired.Resources]bool{
			{}: true, {PIDs: 64}: true, {Memory: 64 << 20}: true, {PIDs: m.PIDs}: true, {Memory: m.Memory}: true, {CPU: 4000}: true,
			{PIDs: m.PIDs + 1}: false, {Memory: m.Memory + 1}: false, {Memory: 1 << 60, PIDs: desired.MaxPIDs}: false,
		} {
			s := &desired.Sandbox{Metadata: desired.Metadata{Name: "web"}, Spec: desired.Spec{Root: desired.Root{Host: &desired.HostRoot{}}, Resources: asked}}
			desired.Default(s)
			if errs := p.Check(s); (len(errs) == 0) != ok {
				t.Errorf("%s: %+v: %v", name, asked, errs)
			}
			if errs := p.CheckResources("linux.resources", asked); (len(errs) == 0) != ok {
				t.Errorf("%s: bundle with %+v: %v", name, asked, errs)
			}
		}
	}
}

func TestDecodePolicyLimits(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"defaultResources: {cpu: 1, memory: 1Gi, pids: 500}\nlogSize: 1Mi": "",
		"defaultResources: {memory: 1Gi}\nmaxResources: {memory: 1Gi}":     "",
		"defaultResources: {memory: 2Gi}\nmaxResources: {memory: 1Gi}":     "defaultResources.memory: is more than maxResources allows; expected at most 1Gi",
		"defaultResources: {cpu: 2}\nmaxResources: {cpu: 1500m}":           "defaultResources.cpu: is more than maxResources allows; expected at most 1500m",
		"defaultResources: {pids: 200}\nmaxResources: {pids: 100}":         "defaultResources.pids: is more than maxResources allows; expected at most 100",
		"defaultResources: {pids: 10}":                                     "defaultResources.pids: expected at least 64",
		"defaultResources: {memory: 1Mi}":                                  "defaultResources.memory: expected at least 32Mi",
		"logSize: 1":                                                       "logSize: expected 64Ki to 1Ti, got 1",
		"logSize: 2Ti":                                                     "logSize: expected 64Ki to 1Ti, got 2Ti",
		"maxDiskSize: 0":                                                   "",
		"defaultDiskSize: 20Gi":                                            "",
		"maxDiskSize: 500Mi":                                               "",
		"maxDiskSize: 1":                                                   "maxDiskSize: expected at least 1Mi, got 1",
		"defaultDiskSize: 10":                                              "defaultDiskSize: expected at least 1Mi, got 10",
		"defaultDiskSize: 2Gi\nmaxDiskSize: 1Gi":                           "defaultDiskSize: is more than maxDiskSize allows; expected at most 1Gi",
		"defaultDiskSize: 1Mi\nmaxDiskSize: 0":                             "defaultDiskSize: is more than maxDiskSize allows; expected at most 0",
		"defaultResources: {memory: lots}":                                 "memory",
		"defaultResource: {memory: 1Gi}":                                   "defaultResources",
	} {
		p, problems := Decode("policy.yaml", []byte(policyHead+text))
		if got := fmt.Sprint(problems); (p != nil) != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %v, expected %q", text, problems, want)
		}
	}
}

// Files on the disk have a size, whatever a policy leaves out, and none is larger than what a
// sandbox may have.
func TestDefaultDiskSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "1Gi 16Gi", "maxDiskSize: 500Mi": "500Mi 500Mi", "maxDiskSize: 0": "0 0", "defaultDiskSize: 20Gi": "20Gi 20Gi", "defaultDiskSize: 2Mi": "2Mi 16Gi", "maxDiskSize: 1Ti": "1Gi 1Ti",
	} {
		if p := policyOf(t, text); fmt.Sprint(p.DefaultDiskSize, *p.MaxDiskSize) != want {
			t.Errorf("%q: %v, at most %v; expected %s", text, p.DefaultDiskSize, *p.MaxDiskSize, want)
		}
	}
}
