// SPDX-License-Identifier: Apache-2.0

package exit

import (
	"errors"
	"fmt"
	"testing"
)

func TestExitError(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	for _, c := range []struct {
		err  *Error
		text string
	}{{&Error{Code: 7}, "exit code 7"}, {&Error{Code: 7, Err: cause}, "cause"}} {
		if c.err.Error() != c.text || errors.Is(c.err, cause) != (c.err.Err != nil) {
			t.Errorf("%v", c.err)
		}
	}
	var e *Error
	if err := fmt.Errorf("more: %w", Usagef("got %d", 3)); !errors.As(err, &e) || e.Code != Usage || e.Error() != "got 3" {
		t.Errorf("%v", err)
	}
}

// Nothing ends this program with 0 but success.
func TestCode(t *testing.T) {
	t.Parallel()
	if err := Code(0); err != nil {
		t.Errorf("0 is %v", err)
	}
	for _, code := range []int{1, 126, 137, 255} {
		if e, ok := errors.AsType[*Error](Code(code)); !ok || e.Code != code || e.Err != nil {
			t.Errorf("%d is %v", code, e)
		}
	}
}
