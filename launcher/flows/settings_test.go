// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What the kernel shows is taken, whatever it lacks, and what is no number is not.
func TestSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if s := look(dir); s != (Settings{}) || s.Each() != 1<<12 || s.Most() != 1<<14 {
		t.Errorf("%+v of nothing", s)
	}
	for name, text := range map[string]string{
		"max": "262144\n", "udp_timeout": "30\n", "icmp_timeout": "45\n", "icmpv6_timeout": "?", "tcp_timeout_syn_sent": "120\n",
		"tcp_timeout_unacknowledged": "300\n", "generic_timeout": "600\n", "tcp_timeout_established": "432000\n", "gre_timeout": "-1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "nf_conntrack_"+name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := Settings{
		Max: 262144, Datagrams: 45 * time.Second, TCP: 5 * time.Minute, Other: 10 * time.Minute, Established: 120 * time.Hour,
		States: [...]time.Duration{0: 2 * time.Minute, 2: 120 * time.Hour, 10: 5 * time.Minute},
	}
	if s := look(dir); s != want || s.Each() != 16384 || s.Most() != 65536 {
		t.Errorf("%+v, expected %+v", s, want)
	}
	if s := (Settings{Max: 100}); s.Each() != 256 || s.Most() != 256 {
		t.Errorf("%d and %d of a small host", s.Each(), s.Most())
	}
}
