// SPDX-License-Identifier: Apache-2.0

package envfile

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]Variable{
		"":                                  nil,
		"\n\n# a\n  # b\n\t\n":              nil,
		"A=b":                               {{"A", "b"}},
		"A=b\nC=d\n":                        {{"A", "b"}, {"C", "d"}},
		"A=b\r\nC=d\r\n":                    {{"A", "b"}, {"C", "d"}},
		"\ufeffA=b\n":                       {{"A", "b"}},
		"A=\nB=\"\"\nC=''\nD= \t\n":         {{"A", ""}, {"B", ""}, {"C", ""}, {"D", ""}},
		"export A=b\nexport\tC=d":           {{"A", "b"}, {"C", "d"}},
		"export \t A=b\nexportB=c":          {{"A", "b"}, {"exportB", "c"}},
		"  export   A=b":                    {{"A", "b"}},
		"export=1":                          {{"export", "1"}},
		"A= b c \t\n":                       {{"A", "b c"}},
		"A=b=c==":                           {{"A", "b=c=="}},
		"A=b #c\nB=b#c\nC= #c\nD=#c":        {{"A", "b"}, {"B", "b#c"}, {"C", ""}, {"D", "#c"}},
		"A=\"b #c\" # d\nB='b' \t# d":       {{"A", "b #c"}, {"B", "b"}},
		`A="a\nb\t\"c\" \\ \$X"`:            {{"A", "a\nb\t\"c\" \\ $X"}},
		`A='a\nb "c" \'` + "\n":             {{"A", `a\nb "c" \`}},
		"A=\"one\ntwo\r\nthree\"\nB=x":      {{"A", "one\ntwo\nthree"}, {"B", "x"}},
		"A='-----BEGIN\n# no comment\nEND'": {{"A", "-----BEGIN\n# no comment\nEND"}},
		"A=$X ${Y} $(Z) `w`":                {{"A", "$X ${Y} $(Z) `w`"}},
		"A=it's \"b\"":                      {{"A", "it's \"b\""}},
		"a.b-c_9=ü":                         {{"a.b-c_9", "ü"}},
	} {
		got, err := Parse([]byte(text), false)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q %v, expected %q", text, got, err, want)
		}
	}
}

func TestParseRaw(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]Variable{
		"A=\"b\" # c ": {{"A", "\"b\" # c "}},
		"A= b\n\n#B=c": {{"A", " b"}},
		"  A='x\nB=y'": {{"A", "'x"}, {"B", "y'"}},
		"A=\\n\r\n":    {{"A", "\\n"}},
		"export=1":     {{"export", "1"}},
	} {
		if got, err := Parse([]byte(text), true); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q %v, expected %q", text, got, err, want)
		}
	}
}

// An error says where, and nothing of what is in the file.
func TestParseErrors(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t"
	for text, want := range map[string]string{
		secret:                                 "1:1: expected NAME=VALUE, there is no =",
		"A=b\n\n  " + secret + "\n":            "3:3: expected NAME=VALUE",
		"A=b\nA=" + secret:                     "2:1: A is given twice, first in line 1",
		"A='x\ny'\n\nB=1\nA=" + secret:         "5:1: A is given twice, first in line 1",
		"9" + secret + "=1":                    "1:1: expected the name of a variable",
		" A =" + secret:                        "1:2: expected the name of a variable",
		"=" + secret:                           "1:1: expected the name of a variable",
		"export  A B=" + secret:                "1:9: expected the name of a variable",
		"exportA B=" + secret:                  "1:1: expected the name of a variable",
		"export =" + secret:                    "1:8: expected the name of a variable",
		"A=1\nB=caf\xe9" + secret:              "2:6: expected UTF-8; save the file with this encoding",
		"A='\xed\xa0\x80'" + secret:            "1:4: expected UTF-8",
		"A=\xc3":                               "1:3: expected UTF-8",
		secret + ": x=1":                       "1:1: expected the name of a variable",
		"A=1\nB= \"" + secret + "\nC=2\n":      "2:4: the quote \" is not closed",
		"B='" + secret:                         "1:3: the quote ' is not closed",
		"A=\"b\"" + secret:                     "1:6: expected the end of the line after the closing quote",
		"A=\"b\nc\" " + secret:                 "2:4: expected the end of the line after the closing quote",
		"A='b'#" + secret:                      "1:6: expected the end of the line after the closing quote",
		"A=\"" + secret + "\\d\"":              "1:10: expected one of \\n",
		"A=\"x\n\\\n" + secret + "\"":          "2:1: expected one of \\n",
		"A=b\nB=" + secret + "\x00":            "2:9: a NUL",
		"A=" + strings.Repeat("x", MaxValue+1): "1:3: the value of A has 131072 bytes",
		strings.Repeat("#", MaxBytes+1):        "1:1: the file has more than 262144 bytes",
		strings.Repeat("\n", 7) + "export ":    "8:8: expected NAME=VALUE",
		"\xff\xfeA\x00=\x00":                   "1:1: expected UTF-8",
		"- A=" + secret:                        "1:1: expected the name of a variable",
		strings.Repeat("x", 70000) + "=" + secret + "\n" + secret: "2:1: expected NAME=VALUE",
	} {
		_, err := Parse([]byte(text), false)
		var at *Error
		if !errors.As(err, &at) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40q: %v, expected %q", text, err, want)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%.40q: %v has a piece of the file", text, err)
		}
	}
	var many strings.Builder
	for i := range MaxVariables + 1 {
		many.WriteString("A" + strings.Repeat("B", i%100) + strings.Repeat("C", i/100) + "=\n")
	}
	if _, err := Parse([]byte(many.String()), false); err == nil || !strings.HasPrefix(err.Error(), "2001:1: the file has more than 2000 variables") {
		t.Errorf("%v", err)
	}
}

// Whatever is in a file, it is read to its end or refused where something is.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"A=b", "A=\"b\\n\nc\" # d\nB='x'", "export A=1\r\n", "\ufeffA=\x00", "A='", "#\n=\n"} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, text []byte, raw bool) {
		vars, err := Parse(text, raw)
		var at *Error
		if err != nil && (!errors.As(err, &at) || at.Line < 1 || at.Line > strings.Count(string(text), "\n")+1 || at.Column < 1) {
			t.Errorf("%v", err)
		}
		names := map[string]bool{}
		for _, v := range vars {
			if names[v.Name] || !ValidName(v.Name) || !utf8.ValidString(v.Value) || strings.ContainsRune(v.Value, 0) || len(v.Value) > MaxValue {
				t.Errorf("%q", v)
			}
			names[v.Name] = true
		}
	})
}
