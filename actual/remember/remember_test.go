// SPDX-License-Identifier: Apache-2.0

package remember

import (
	"errors"
	"sync"
	"testing"
)

// What failed is asked for again, what succeeded is not.
func TestSuccess(t *testing.T) {
	t.Parallel()
	asked, wrong := 0, errors.New("no memory")
	get := Success(func() (int, error) {
		if asked++; asked < 3 {
			return 0, wrong
		}
		return asked, nil
	})
	for i, want := range []error{wrong, wrong, nil, nil, nil} {
		v, err := get()
		if !errors.Is(err, want) || err == nil && v != 3 {
			t.Errorf("call %d: %d, %v, expected %v", i, v, err, want)
		}
	}
	if asked != 3 {
		t.Errorf("asked %d times", asked)
	}
}

func TestSuccessTogether(t *testing.T) {
	t.Parallel()
	asked := 0
	get := Success(func() (int, error) { asked++; return asked, nil })
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if v, err := get(); v != 1 || err != nil {
				t.Errorf("%d, %v", v, err)
			}
		})
	}
	wg.Wait()
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}
