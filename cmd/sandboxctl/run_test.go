// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"testing"

	"sandboxctl.dev/cmd/sandboxctl/exit"
)

// The exit codes of a command are passed on, whatever they mean here. Those of this program become
// one that commands seldom have.
func TestRunError(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{exit.Code(1), 1},
		{exit.Code(2), 2},
		{exit.Code(3), 3},
		{exit.Code(124), 124},
		{exit.Code(255), 255},
		{cause, exitOurs},
		{exit.Usagef("what"), exitOurs},
		{fmt.Errorf("more: %w", exit.Usagef("what")), exitOurs},
		{&exit.Error{Code: exit.Timeout, Err: cause}, exitOurs},
		{&exit.Error{Code: exit.Failure, Err: cause}, exitOurs},
		{&exit.Error{Code: 127, Err: cause}, 127},
		{&exit.Error{Code: exitTimedOut, Err: cause}, exitTimedOut},
		{&exit.Error{Code: 130, Err: cause}, 130},
	} {
		err := runError(c.err)
		if c.want == 0 {
			if err != nil {
				t.Errorf("%v: %v", c.err, err)
			}
			continue
		}
		e, ok := errors.AsType[*exit.Error](err)
		if !ok || e.Code != c.want || err.Error() != c.err.Error() {
			t.Errorf("%v: %v (%+v), expected exit code %d", c.err, err, e, c.want)
		}
	}
}
