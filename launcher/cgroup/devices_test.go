// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestDeviceSettings(t *testing.T) {
	t.Parallel()
	n := func(v int64) *int64 { return &v }
	got, err := deviceSettings([]specs.LinuxDeviceCgroup{
		{Access: "rwm"},
		{Allow: true, Type: "c", Major: n(10), Minor: n(229), Access: "rw"},
		{Allow: true, Type: "b", Major: n(8), Minor: n(-1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, s := range got {
		if s.controller != devicesController || s.v2 != "" || !s.optional {
			t.Errorf("%+v: expected an optional setting of v1's devices", s)
		}
		words = append(words, strings.TrimPrefix(s.v1, "devices.")+" "+s.value1)
	}
	if want := []string{"deny a", "allow c 10:229 rw", "allow b 8:* rwm", "allow c *:* m"}; !slices.Equal(words[:4], want) {
		t.Errorf("%q, expected %q first", words, want)
	}
	if len(words) != 3+len(alwaysAllowed) {
		t.Errorf("%d rules, expected what is always allowed after those given: %q", len(words), words)
	}
}

// Rules that only allow leave everything allowed: nothing is added.
func TestDeviceSettingsAllow(t *testing.T) {
	t.Parallel()
	got, err := deviceSettings([]specs.LinuxDeviceCgroup{{Allow: true, Type: "a"}})
	if err != nil || len(got) != 1 || got[0].v1 != "devices.allow" || got[0].value1 != "a" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDeviceSettingsRefused(t *testing.T) {
	t.Parallel()
	one := int64(1)
	for _, c := range []struct {
		rule specs.LinuxDeviceCgroup
		want string
	}{
		{specs.LinuxDeviceCgroup{Type: "x"}, `type "x", expected a, b or c`},
		{specs.LinuxDeviceCgroup{Type: "c", Access: "rwx"}, `access "rwx"`},
		{specs.LinuxDeviceCgroup{Type: "c", Access: "r\nb"}, "expected some of r, w and m"},
		{specs.LinuxDeviceCgroup{Type: "a", Major: &one}, "type a with numbers, 1:*"},
		{specs.LinuxDeviceCgroup{Type: "a", Access: "r"}, `type a with access "r"`},
	} {
		if _, err := deviceSettings([]specs.LinuxDeviceCgroup{c.rule}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, expected %q", c.rule, err, c.want)
		}
	}
}
