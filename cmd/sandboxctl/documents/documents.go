// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/cmd/sandboxctl/world"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/reconcile/attached"
)

// document is one as it is printed. The values are those of a Config: of a Secret there
// are none here, so that nothing below can print one.
type document struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metadata          `json:"metadata"`
	Data       map[string]string `json:"data,omitempty"`
	BinaryData map[string][]byte `json:"binaryData,omitempty"`
	Files      map[string]string `json:"files,omitempty"`
	// Spec is that of a Volume or a Network.
	Spec   spec   `json:"spec,omitempty"`
	Status status `json:"status"`
}

// spec is what a document declares that has no data.
type spec interface {
	// Value is what it says by one of its keys.
	Value(key string) string
}

type metadata struct {
	Name string `json:"name"`
}

type status struct {
	Keys       []string `json:"keys"`
	UsedBy     []string `json:"usedBy"`
	SourceFile string   `json:"sourceFile"`
	SourceLine int      `json:"sourceLine,omitempty"`
	*poolStatus
	*claimStatus
}

type list struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Items      []document `json:"items"`
}

func describe(w *world.World, o *desired.Object, users []string) document {
	kind, name, _ := objects.Split(o.Name())
	d := document{APIVersion: desired.APIVersion, Kind: kind, Metadata: metadata{name}, Files: map[string]string{}}
	d.Status = status{Keys: o.Keys(), UsedBy: append([]string{}, users...), SourceFile: o.Source.File, SourceLine: o.Source.Line}
	switch {
	case o.Volume != nil:
		d.Spec = o.Volume
	case o.Network != nil:
		d.Spec = o.Network
	case o.Pool != nil:
		d.Spec, d.Status.poolStatus = o.Pool, poolStatusOf(w, o)
	}
	for _, k := range d.Status.Keys {
		if p := o.File(k); p != "" {
			d.Files[k] = p
		}
	}
	if kind == objects.Config {
		d.Data, d.BinaryData = valuesOf(o)
	}
	return d
}

// usersOfAll are the sandboxes that refer to documents, by the full name of these: in their
// manifests or, where these are broken or gone, in the last valid ones on record, with which
// they start again. Each manifest is looked at once, however many documents there are.
func usersOfAll(w *world.World) map[string][]string {
	out := map[string][]string{}
	for i := range w.Statuses {
		e := w.Entry(w.Statuses[i].Name)
		if e == nil {
			continue
		}
		user := e.Sandbox.Metadata.Name
		for _, name := range world.Referred(e.Sandbox) {
			if users := out[name]; len(users) == 0 || users[len(users)-1] != user {
				out[name] = append(users, user)
			}
		}
	}
	return out
}

// mostKeys is how many keys of a document are in a table, which all its lines are as wide as.
const mostKeys = 10

// shownKeys are the keys of a document for a table.
func (d *document) shownKeys(all bool) string {
	keys := d.Status.Keys
	if more := len(keys) - mostKeys; more > 1 && !all {
		return fmt.Sprintf("%s,… (%d more)", strings.Join(keys[:mostKeys], ","), more)
	}
	return strings.Join(keys, ",")
}

// valuesOf are the values that are in the document, text apart from what is none.
func valuesOf(o *desired.Object) (text map[string]string, binary map[string][]byte) {
	text, binary = map[string]string{}, map[string][]byte{}
	for _, k := range o.Keys() {
		switch v := o.Value(k); {
		case o.File(k) != "":
		case utf8.Valid(v):
			text[k] = string(v)
		default:
			binary[k] = v
		}
	}
	return text, binary
}

func (d *document) fullName() string { return objects.Name(d.Kind, d.Metadata.Name) }

func (d *document) source() string {
	if d.Status.SourceLine == 0 {
		return d.Status.SourceFile
	}
	return d.Status.SourceFile + ":" + strconv.Itoa(d.Status.SourceLine)
}

// Get prints what is asked for, as `get` does.
func (q *Query) Get(h *world.Host, w *world.World, output string) error {
	if output == "manifest" {
		return exit.Usagef("-o manifest is for sandboxes; `sandboxctl edit config/NAME` opens the manifest of a document")
	}
	found, err := q.find(h, w)
	if err != nil {
		return err
	}
	switch output {
	case "name":
		for i := range found {
			fmt.Fprintln(h.Stdout, found[i].shortest())
		}
		return nil
	case "json", "yaml":
		return q.encode(h.Stdout, found, output)
	}
	if len(found) == 0 {
		fmt.Fprintf(h.Stderr, "no %ss in %s\n", objects.Word(q.kind), h.Manifests)
		return nil
	}
	switch q.kind {
	case objects.Pool:
		return printPools(h.Stdout, found)
	case desired.ClaimKind:
		return printClaims(h.Stdout, w, found)
	}
	rows := make([][]string, len(found))
	for i := range found {
		d := &found[i]
		name := d.Metadata.Name
		if q.kind == "" {
			name = d.fullName()
		}
		rows[i] = []string{show.Clean(name), d.shownKeys(output == "wide"), strings.Join(d.Status.UsedBy, ","), show.Clean(d.source())}
	}
	return show.Table(h.Stdout, []string{"NAME", "KEYS", "USED BY", "SOURCE"}, rows)
}

func (q *Query) encode(out io.Writer, found []document, output string) error {
	encode := show.JSON
	if output == "yaml" {
		encode = show.YAML
	}
	if len(q.names) == 1 {
		return encode(out, found[0])
	}
	kind := q.kind
	if kind == "" {
		kind = "Document"
	}
	return encode(out, list{APIVersion: desired.APIVersion, Kind: kind + "List", Items: found})
}

// Describe prints all there is to say.
func (q *Query) Describe(h *world.Host, w *world.World, output string) error {
	found, err := q.find(h, w)
	if err != nil {
		return err
	}
	if output != "" {
		return q.encode(h.Stdout, found, output)
	}
	for i := range found {
		if i > 0 {
			fmt.Fprintln(h.Stdout)
		}
		if err := found[i].print(h.Stdout, w); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) print(out io.Writer, w *world.World) error {
	tw := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "Name:\t%s\nKind:\t%s\nManifest:\t%s\n", show.Clean(d.Metadata.Name), d.Kind, show.Clean(d.source()))
	if len(d.Status.UsedBy) == 0 {
		fmt.Fprintln(tw, "Used by:\tnobody")
	} else {
		fmt.Fprintln(tw, "\nUsed by:\t\n  SANDBOX\tKEY\tFIELD")
	}
	for _, user := range d.Status.UsedBy {
		for _, r := range world.References(w.Entry(user).Sandbox, d.fullName()) {
			_, key, _ := objects.Referred(r.Path)
			fmt.Fprintf(tw, "  %s\t%s\t%s\n", user, cmp.Or(key, "(all)"), r.Field)
		}
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	switch d.Kind {
	case objects.Network:
		d.printOutdated(out, w)
	case objects.Pool:
		d.printPool(out)
	}
	fmt.Fprintln(out, "\nKeys:")
	for _, k := range d.Status.Keys {
		d.printKey(out, k)
	}
	for _, warn := range w.In.Desired.Warnings {
		if warn.Exposed && d.Kind == objects.Secret && warn.File == d.Status.SourceFile {
			fmt.Fprintf(out, "\nWarning: %s\n", show.Clean(warn.Error()))
		}
	}
	return nil
}

// printOutdated tells who runs with what a Network document said before.
func (d *document) printOutdated(out io.Writer, w *world.World) {
	for _, user := range d.Status.UsedBy {
		rec := w.Record(user)
		if rec == nil || rec.Phase != actual.PhaseRunning {
			continue
		}
		if why := attached.OutdatedOn(d.Metadata.Name, w.In.Desired, rec); why != "" {
			fmt.Fprintf(out, "\nWarning: %s has not been restarted since a change: %s\n", user, why)
		}
	}
}

func (d *document) printKey(out io.Writer, key string) {
	text, isText := d.Data[key]
	switch {
	case d.Files[key] != "":
		fmt.Fprintf(out, "  %s: (the file %s)\n", key, show.Clean(d.Files[key]))
	case isText && !strings.Contains(text, "\n"):
		fmt.Fprintf(out, "  %s: %s\n", key, show.Clean(text))
	case isText:
		fmt.Fprintf(out, "  %s: |\n", key)
		for l := range strings.Lines(text) {
			fmt.Fprintf(out, "    %s\n", show.Clean(strings.TrimSuffix(l, "\n")))
		}
	case d.Kind == objects.Secret:
		fmt.Fprintf(out, "  %s: (not shown)\n", key)
	case d.Spec != nil:
		fmt.Fprintf(out, "  %s: %s\n", key, d.Spec.Value(key))
	default:
		fmt.Fprintf(out, "  %s: (%d bytes that are no text)\n", key, len(d.BinaryData[key]))
	}
}
