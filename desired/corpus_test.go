// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"strings"
	"sync"

	"sandboxctl.dev/desired/yamldoc"
)

// fill repeats what gen makes for 0, 1, 2, … as often as it fits into size
// bytes.
func fill(size int, gen func(i int) string) string {
	var b strings.Builder
	for i := 0; ; i++ {
		s := gen(i)
		if b.Len()+len(s) > size {
			return b.String()
		}
		b.WriteString(s)
	}
}

func repeat(size int, s string) string { return fill(size, func(int) string { return s }) }

// document makes a text one of about the size that a document may have.
func document(body string) string { return "---\n" + body }

// file repeats a document up to the size that a file may have.
func file(gen func(i int) string) string { return fill(yamldoc.MaxFileBytes, gen) }

// docSize is what is left of the size of a document for what is between its
// marker and its end.
const docSize = yamldoc.MaxDocumentBytes - 16

// valid is a manifest of a name with more lines in its spec.
func valid(i int, lines ...string) string {
	return "---\n" + strings.Replace(with(lines...), "name: web", fmt.Sprintf("name: s%d", i), 1)
}

// manifests are n valid ones.
func manifests(n int, lines ...string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(valid(i, lines...))
	}
	return b.String()
}

// maxMarks is how many commas, colons, dashes, brackets and lines a document may have.
const maxMarks = 3 * yamldoc.MaxNodes

// fewerMarks cuts each document of a text to as many marks as it may have.
func fewerMarks(text string) string {
	var b strings.Builder
	for _, c := range yamldoc.Split([]byte(text), yamldoc.MaxDocuments) {
		left := maxMarks - 2
		cut := len(c.Text)
		for i := range c.Text {
			if left -= (yamldoc.NodesAtMost(c.Text[i:i+1]) - yamldoc.NodesAtMost(nil)) / 2; left == 0 {
				cut = i
				break
			}
		}
		b.Write(c.Text[:cut])
		b.WriteByte('\n')
	}
	return b.String()
}

// hardShapes are texts of up to 1 MiB that are made to be slow or large to read.
var hardShapes = sync.OnceValue(func() map[string]string {
	// What is short is made longer, so that the file has fewer documents than it may.
	each := func(body string) string {
		if short := yamldoc.MaxFileBytes/(yamldoc.MaxDocuments-10) - len(body); short > 0 {
			body += "# " + strings.Repeat("p", short) + "\n"
		}
		return file(func(int) string { return document(body) })
	}
	nodes := func(n int, s string) string { return strings.Repeat(s, n) }
	args := func(n int, s string) string { return "args: [" + strings.Repeat(s+",", n) + s + "]" }
	return map[string]string{
		// Aliases: billion laughs, one long string many times, merge keys.
		"alias bomb":           each("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]\n"),
		"alias growth":         each("a: &a '" + strings.Repeat("x", 50000) + "'\nb: [" + strings.Repeat("*a,", 4000) + "*a]\n"),
		"alias growth, one":    "a: &a '" + strings.Repeat("x", 50000) + "'\nb: [" + strings.Repeat("*a,", 2000) + "*a]\n",
		"aliases to itself":    each("&a a: &b\n  c: *b\n  d: [*a, *b]\n"),
		"merge keys":           each("a: &a {x: 1}\nb:\n" + repeat(docSize-30, "  <<: *a\n")),
		"merge of merges":      each("a: &a {x: 1}\n" + fill(docSize-30, func(i int) string { return fmt.Sprintf("b%d: &b%d {<<: [*a, *a, *a]}\n", i, i) })),
		"anchors":              each(fill(docSize, func(i int) string { return fmt.Sprintf("k%d: &a%d v\n", i, i) })),
		"many aliases by name": each(fill(docSize/2, func(i int) string { return fmt.Sprintf("k%d: &a%d v\n", i, i) }) + fill(docSize/2, func(i int) string { return fmt.Sprintf("l%d: *a%d\n", i, i) })),
		// Maps, which a check for unique keys makes quadratic.
		"keys":            each(fill(docSize, func(i int) string { return fmt.Sprintf("k%d: v\n", i) })),
		"keys, flow":      each("{" + fill(docSize-8, func(i int) string { return fmt.Sprintf("k%d: v,", i) }) + "}\n"),
		"keys of one map": manyKeys(yamldoc.MaxFileBytes - 10),
		"long keys":       each(fill(docSize, func(i int) string { return fmt.Sprintf("%s%d: v\n", strings.Repeat("k", 900), i) })),
		"same key":        each(repeat(docSize, "k: v\n")),
		"labels": file(func(i int) string {
			return document(strings.Replace(minimal, "{name: web}", "{name: web, labels: {"+fill(docSize-400, func(i int) string { return fmt.Sprintf("k%d: v,", i) })+"}}", 1))
		}),
		"labels, numbers": each(strings.Replace(minimal, "{name: web}", "{name: web, labels: {"+fill(30000, func(i int) string { return fmt.Sprintf("k%d: 1,", i) })+"}}", 1)),
		"complex keys":    each(repeat(docSize, "? [a, b]\n: c\n")),
		"sets":            each("{" + repeat(docSize-10, "a,") + "}\n"),
		"nothings":        each(repeat(docSize, "-\n")),
		"questions":       each(repeat(docSize, "? ")),
		"colons":          each(repeat(docSize, ":")),
		"colons, spaced":  each(repeat(docSize, ": ")),
		// Depth.
		"open brackets":    repeat(yamldoc.MaxFileBytes, "["),
		"open braces":      each(repeat(docSize, "{a: ")),
		"brackets, closed": each(repeat(docSize, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]],")),
		"deep flow":        each("[" + repeat(docSize-10, strings.Repeat("[", 100)+strings.Repeat("]", 100)+",") + "]\n"),
		"dashes":           each(repeat(docSize, "- ")),
		"dashes, lines":    each(repeat(docSize, strings.Repeat("- ", 30)+"a\n")),
		"deep block": each(fill(docSize, func(i int) string {
			return strings.Repeat(" ", i) + "a:\n"
		})),
		"deep block, again and again": each(func() string {
			var one strings.Builder
			for i := range 31 {
				fmt.Fprintf(&one, "%sa:\n", strings.Repeat(" ", i))
			}
			return repeat(docSize, one.String())
		}()),
		"stairs": each(fill(docSize, func(i int) string { return strings.Repeat(" ", 30-i%31) + "- a\n" })),
		// Scalars.
		"plain scalar":         each("a: " + repeat(docSize-20, "x") + "\n"),
		"plain, many lines":    each("a:\n" + repeat(docSize-20, "  x\n")),
		"single quotes":        each("a: '" + repeat(docSize-20, "''") + "'\n"),
		"double quotes":        each("a: \"" + repeat(docSize-20, `\"`) + "\"\n"),
		"escapes":              each("a: \"" + repeat(docSize-20, `\U0010FFFF`) + "\"\n"),
		"escaped lines":        each("a: \"" + repeat(docSize-20, "x\\\n") + "\"\n"),
		"quoted, many lines":   each("a: \"" + repeat(docSize-20, "x\n\n") + "\"\n"),
		"literal":              each("a: |\n" + repeat(docSize-20, "  "+strings.Repeat("y", 100)+"\n")),
		"literal, short lines": each("a: |\n" + repeat(docSize-20, " y\n")),
		"literal, blank lines": each("a: |+\n" + repeat(docSize-20, "\n")),
		"folded":               each("a: >\n" + repeat(docSize-20, " y\n\n")),
		"folded, indented":     each("a: >\n" + repeat(docSize-20, "  y\n   z\n")),
		"huge number":          each("a: " + repeat(docSize-20, "9") + "\n"),
		"huge float":           each("a: 1." + repeat(docSize-20, "9") + "\n"),
		"huge exponent":        each(fill(docSize, func(i int) string { return fmt.Sprintf("k%d: 1e%d\n", i, i+1000) })),
		"numbers":              each("a: [" + repeat(docSize-20, "0x1,") + "]\n"),
		"underscores":          each("a: [" + repeat(docSize-20, "1_1,") + "]\n"),
		"sexagesimal":          each("a: [" + repeat(docSize-20, "1:1:1,") + "]\n"),
		"timestamps":           each("a: [" + repeat(docSize-20, "2001-01-01,") + "]\n"),
		"binary":               each("a: !!binary " + repeat(docSize-20, "AAAA") + "\n"),
		"huge key":             each(repeat(docSize-20, "k") + ": v\n"),
		"huge quoted key":      each("\"" + repeat(docSize-20, "k") + "\": v\n"),
		"huge unknown field":   each(strings.Replace(minimal, "command:", "  "+repeat(docSize/2, "k")+": v\n  command:", 1)),
		"tags":                 each("a: [" + repeat(docSize-20, "!!str x,") + "]\n"),
		"long tag":             each("a: !<" + repeat(docSize-20, "t") + "> x\n"),
		"tag escapes":          each("a: !" + repeat(docSize-20, "%41") + " x\n"),
		"long anchor":          each("a: &" + repeat(docSize-20, "t") + " x\n"),
		"directives":           file(func(int) string { return "%TAG ! tag:x,2000:\n---\na: b\n" }),
		// Comments and space.
		"comments":             repeat(yamldoc.MaxFileBytes, "# "+strings.Repeat("c", 70)+"\n"),
		"comments in document": each("a: b\n" + repeat(docSize-20, "#\n")),
		"comments after keys":  each(fill(docSize, func(i int) string { return fmt.Sprintf("k%d: v # c\n", i) })),
		"comments before keys": each(fill(docSize, func(i int) string { return fmt.Sprintf("# c\nk%d: v\n", i) })),
		"comment blocks":       each(fill(docSize, func(i int) string { return fmt.Sprintf("# c\n\n# d\nk%d:\n# e\n- v\n# f\n\n", i) })),
		"comments, deep":       each(repeat(docSize, "- - - - a\n      # c\n    # d\n  # e\n# f\n")),
		"comments in flow":     each("[" + repeat(docSize-20, "a, # c\n") + "]\n"),
		"long comment":         each("a: b #" + repeat(docSize-20, "c") + "\n"),
		"comment before colon": each(repeat(docSize-20, "? a\n#\n")),
		"spaces":               repeat(yamldoc.MaxFileBytes, " "),
		"spaces in document":   each("a:" + repeat(docSize-20, " ") + "b\n"),
		"newlines":             repeat(yamldoc.MaxFileBytes, "\n"),
		"newlines in document": each("a:" + repeat(docSize-20, "\n") + " b\n"),
		"tabs":                 each("a:" + repeat(docSize-20, "\t") + "b\n"),
		"carriage returns":     each("a:" + repeat(docSize-20, "\r") + " b\n"),
		"CRLF":                 each(fill(docSize, func(i int) string { return fmt.Sprintf("k%d: v\r\n", i) })),
		"line separators":      each("a: \"" + repeat(docSize-20, "\u2028") + "\"\n"),
		"multibyte":            each("a: " + repeat(docSize-20, "\U0001F600") + "\n"),
		// Documents.
		"documents":               repeat(yamldoc.MaxFileBytes, "---\n"),
		"documents, thousand":     strings.Repeat("--- a\n", 1000),
		"documents, kinds":        file(func(i int) string { return fmt.Sprintf("---\nkind: k%d\n", i) }),
		"document ends":           repeat(yamldoc.MaxFileBytes, "...\n"),
		"bad in the end":          each(fill(docSize-20, func(i int) string { return fmt.Sprintf("k%d: v\n", i) }) + "]\n"),
		"a name to guess":         each("metadata:\n" + repeat(docSize-40, "  a: b\n") + "  : [\n"),
		"a name to guess, spaces": each("metadata:\n" + repeat(docSize-40, " \t") + "\n[\n"),
		// Valid or nearly so: every step is taken.
		"thirty values each":              manifests(yamldoc.MaxDocuments, "args: ["+strings.Repeat("'"+strings.Repeat("x", 80)+"',", 18)+"]"),
		"small manifests, then a bad one": manifests(yamldoc.MaxDocuments-1, "args: ["+strings.Repeat("x,", 16)+"]") + document("{"+repeat(2*maxMarks-20, "a,")+"}\n"),
		"large manifests, then a bad one": manifests(3, args(3900, "x")) + document("{"+repeat(2*maxMarks-20, "a,")+"}\n"),
		"small manifests":                 manifests(yamldoc.MaxDocuments),
		"same manifest":                   file(func(int) string { return document(minimal) }),
		"manifests, most values":          file(func(i int) string { return valid(i, args(3900, "abcdefghijkl")) }),
		"manifests, one long value":       file(func(i int) string { return valid(i, args(0, repeat(docSize-300, "x"))) }),
		"manifests, environment": file(func(i int) string {
			return valid(i, "env: ["+fill(docSize-400, func(i int) string { return fmt.Sprintf("{name: A%d, value: '%032d'},", i, i) })+"]")
		}),
		"manifests, volumes": file(func(i int) string {
			return valid(i, "volumes: ["+fill(docSize-400, func(i int) string {
				return fmt.Sprintf("{name: v%d, mountPath: /m%d, hostPath: /srv/%d},", i, i, i)
			})+"]")
		}),
		"manifests, clashes": file(func(i int) string {
			return valid(i, "volumes: ["+repeat(docSize-400, "{name: v, mountPath: /m, hostPath: /srv/x},")+"]")
		}),
		"manifests, mappings": file(func(i int) string {
			return valid(i, "idMappings: {uids: ["+nodes(400, "{containerID: 0, hostID: 0, size: 9},")+"], gids: ["+nodes(400, "{containerID: 0, hostID: 0, size: 9},")+"]}")
		}),
		"manifests, most mistakes": file(func(i int) string { return valid(i, "args: ["+nodes(3900, "1,")+"]") }),
		"manifests, unknown fields": file(func(i int) string {
			return valid(i, fill(40000, func(i int) string { return fmt.Sprintf("k%d: v\n  ", i) }))
		}),
		"manifests, close calls": file(func(i int) string { return valid(i, "capabilities: {add: ["+nodes(3900, "NET_ADMN,")+"]}") }),
		"JSON": file(func(i int) string {
			return fmt.Sprintf("---\n{\"apiVersion\":\"sandboxctl.dev/v1alpha1\",\"kind\":\"Sandbox\",\"metadata\":{\"name\":\"s%d\"},\"spec\":{\"root\":{\"host\":{}},\"command\":[%s\"a\"]}}\n", i, nodes(3900, `"a",`))
		}),
	}
})
