// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/launcher/guest"
)

func TestStartTimeout(t *testing.T) {
	t.Parallel()
	ten := 10
	st := &Setup{Containers: []Container{{}}}
	if st.StartTimeout() != 0 {
		t.Error("no hooks need no time")
	}
	cfg := &specs.Spec{Hooks: &specs.Hooks{StartContainer: []specs.Hook{{Path: "/a", Timeout: &ten}, {Path: "/b"}}}}
	if err := st.addStartHooks(cfg, "/b"); err != nil || st.StartTimeout() != 10*time.Second+guest.DefaultTimeout {
		t.Errorf("%s %v", st.StartTimeout(), err)
	}
}
