// SPDX-License-Identifier: Apache-2.0

package history

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// Lines of several sandboxes are never mixed, whatever pieces they come in, and a
// line without an end is printed before it takes too much memory.
func TestPrefixWriter(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxPrefixed)
	for in, want := range map[string]string{
		"":                 "",
		"one\n":            "[a] one\n",
		"one\ntwo":         "[a] one\n[a] two\n",
		"\n\n":             "[a] \n[a] \n",
		"x\r\ny\n":         "[a] x\r\n[a] y\n",
		long + "y\nz\n":    "[a] " + long + "y\n[a] z\n",
		long:               "[a] " + long + "\n",
		"é\x00\n" + "[b] ": "[a] é\x00\n[a] [b] \n",
	} {
		for _, piece := range []int{1, 3, len(in) + 1} {
			var out strings.Builder
			w := &prefixWriter{mu: &sync.Mutex{}, w: &out, prefix: "[a] "}
			for rest := in; rest != ""; {
				n := min(piece, len(rest))
				if got, err := w.Write([]byte(rest[:n])); got != n || err != nil {
					t.Fatal(got, err)
				}
				rest = rest[n:]
			}
			w.Close()
			got := out.String()
			if strings.HasPrefix(in, long) && piece < len(in) {
				// It is cut where it is too long.
				got = strings.Replace(got, long+"\n[a] y", long+"y", 1)
			}
			if got != want {
				t.Errorf("%.20q in pieces of %d: %.60q, expected %.60q", in, piece, got, want)
			}
		}
	}

	var out strings.Builder
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		wg.Go(func() {
			w := &prefixWriter{mu: &mu, w: &out, prefix: "[" + name + "] "}
			for range 300 {
				for _, piece := range []string{name, name, "\n" + name} {
					fmt.Fprint(w, piece)
				}
			}
			w.Close()
		})
	}
	wg.Wait()
	for line := range strings.Lines(out.String()) {
		name := line[1:2]
		if text := strings.Trim(line[4:], "\n"); strings.Trim(text, name) != "" || !strings.HasPrefix(line, "["+name+"] ") {
			t.Fatalf("%q", line)
		}
	}
}
