// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sandboxctl.dev/cmd/sandboxctl-image/images"
)

var updateReference = flag.Bool("update", false, "write docs/reference/verbs.md")

const verbsPage = "../../docs/reference/verbs.md"

// verbsMarkdown is what --help says, of all verbs on one page.
func verbsMarkdown() string {
	root := (&app{}).rootCommand()
	stub, _, err := root.Find([]string{"image"})
	if err != nil {
		panic(err)
	}
	root.RemoveCommand(stub)
	root.AddCommand((&images.Verbs{}).Command())
	var b strings.Builder
	b.WriteString("# Verbs\n\nThis page is what `sandboxctl VERB --help` prints. It is made by `make reference`; edit the commands in `cmd/sandboxctl`.\n\n" + root.Long + "\n")
	b.WriteString("\nFlags of every verb:\n\n```\n" + flagLines(root.PersistentFlags()) + "```\n\n")
	b.WriteString("| verb | what it does |\n| --- | --- |\n")
	var verbs []*cobra.Command
	for _, c := range root.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		children := slices.DeleteFunc(slices.Clone(c.Commands()), func(c *cobra.Command) bool { return !c.IsAvailableCommand() })
		if len(children) == 0 || c.Name() == "completion" {
			verbs = append(verbs, c)
		}
		for _, child := range children {
			if c.Name() != "completion" {
				verbs = append(verbs, child)
			}
		}
	}
	for _, c := range verbs {
		name := strings.TrimPrefix(c.CommandPath(), "sandboxctl ")
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", name, strings.ReplaceAll(name, " ", "-"), c.Short)
	}
	for _, c := range verbs {
		b.WriteString(verbMarkdown(c))
	}
	return b.String()
}

func verbMarkdown(c *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s\n\n```\n%s\n```\n\n", strings.TrimPrefix(c.CommandPath(), "sandboxctl "), c.UseLine())
	long := c.Long
	if long == "" {
		long = c.Short + "."
	}
	b.WriteString(strings.TrimSpace(long) + "\n")
	if len(c.Aliases) > 0 {
		b.WriteString("\nAlso as `" + strings.Join(c.Aliases, "`, `") + "`.\n")
	}
	if c.Example != "" {
		b.WriteString("\n```\n" + c.Example + "\n```\n")
	}
	if flags := flagLines(c.NonInheritedFlags()); flags != "" {
		b.WriteString("\n```\n" + flags + "```\n")
	}
	return b.String()
}

// flagLines are the flags as --help prints them, but for --help itself.
func flagLines(flags *pflag.FlagSet) string {
	var b strings.Builder
	for line := range strings.Lines(flags.FlagUsages()) {
		if !strings.Contains(line, "--help ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// The page of the verbs is what they say of themselves.
func TestVerbsReference(t *testing.T) {
	t.Parallel()
	want := verbsMarkdown()
	got, err := os.ReadFile(verbsPage)
	if err != nil && !*updateReference {
		t.Fatal(err)
	}
	if string(got) == want {
		return
	}
	if !*updateReference {
		t.Fatalf("%s is not what the verbs say; write it with `make reference`", verbsPage)
	}
	if err := os.WriteFile(verbsPage, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
