// SPDX-License-Identifier: Apache-2.0

package networks

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// One network is a text, as it always was: the hash of a manifest is that of its text.
func TestCNINames(t *testing.T) {
	t.Parallel()
	for text, c := range map[string]struct{ want, problems string }{
		`"lab"`:               {want: `"lab"`},
		`["lab"]`:             {want: `"lab"`},
		`["lab","dmz"]`:       {want: `["lab","dmz"]`},
		`["lab","lab"]`:       {want: `["lab","lab"]`, problems: "n.cni[1] is given twice: lab"},
		`["lab","../x"]`:      {want: `["lab","../x"]`, problems: "n.cni[1] expected the name of a network of CNI"},
		`""`:                  {want: `""`, problems: "n.cni expected the name of a network of CNI"},
		`["a","b","c","d"]`:   {want: `["a","b","c","d"]`},
		`[]`:                  {want: `[]`, problems: "n.cni expected the name of a network of CNI"},
		`["a","b","c","d",1]`: {},
	} {
		var names CNINames
		if err := json.Unmarshal([]byte(text), &names); (err != nil) != (c.want == "") {
			t.Errorf("%s: %v", text, err)
		}
		if c.want == "" {
			continue
		}
		if b, err := json.Marshal(names); err != nil || string(b) != c.want {
			t.Errorf("%s: written as %s, %v", text, b, err)
		}
		if got := problems(&Network{Mode: CNI, CNI: names}); len(got) > 1 || !strings.HasPrefix(strings.Join(got, ""), c.problems) || (len(got) == 0) != (c.problems == "") {
			t.Errorf("%s: %q, expected %q", text, got, c.problems)
		}
	}
	if got := problems(&Network{Mode: CNI, CNI: CNINames{"a", "b", "c", "d", "e"}}); !slices.Equal(got, []string{"n.cni expected at most 4 networks, got 5"}) {
		t.Errorf("%q", got)
	}
	if got := problems(&Network{Mode: None, CNI: CNINames{"a"}}); !slices.Equal(got, []string{"n.cni is for network.mode cni only, which is none"}) {
		t.Errorf("%q", got)
	}
}

func problems(n *Network) (out []string) {
	n.Check("n", func(field, format string, args ...any) { out = append(out, field+" "+fmt.Sprintf(format, args...)) })
	return out
}
