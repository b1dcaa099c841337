// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Values of private variables are in no form in what the sentry writes.
func TestConcealer(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	c := &concealer{next: &out}
	const secret = "pa\"ss\n<wörd>\\"
	env := []string{"A=" + secret, "C=80", "D=pa\"ss\n<wörd>\\longer", "E", "B=visible"}
	c.conceal(env, 4)
	asJSON, err := json.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("%s %q %v %s", env, env, env, asJSON)
	if n, err := c.Write([]byte(line)); err != nil || n != len(line) {
		t.Errorf("%d %v", n, err)
	}
	for _, piece := range []string{"pa\"ss", `pa\"ss`, "wörd", "longer"} {
		if strings.Contains(out.String(), piece) {
			t.Errorf("%s has %s", out.String(), piece)
		}
	}
	for _, kept := range []string{"A=$(A)", "D=$(D)", "B=visible", "C=80"} {
		if !strings.Contains(out.String(), kept) {
			t.Errorf("%s has no %s", out.String(), kept)
		}
	}
	none := &concealer{next: &out}
	if none.conceal(env, 0); len(none.values) > 0 {
		t.Errorf("%q of no variables", none.values)
	}
	if none.conceal(env[:1], 9); len(none.values) == 0 {
		t.Error("nothing of more than there are")
	}
	if _, err := (&concealer{next: broken{}}).Write([]byte("x")); err == nil {
		t.Error("nobody is told that it was not written")
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }
