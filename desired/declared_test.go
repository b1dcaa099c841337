// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const volumeHead = "apiVersion: " + APIVersion + "\nkind: Volume\nmetadata: {name: data}\n"

func sized(name, size string) string {
	if size != "" {
		size = ", size: " + size
	}
	return "apiVersion: " + APIVersion + "\nkind: Sandbox\nmetadata: {name: " + name + "}\nspec:\n  root: {host: {}}\n  command: [a]\n" +
		"  volumes: [{mountPath: /data, volume: {name: data" + size + "}}]\n"
}

// A Volume document says what there is to say of a volume, and nothing has to be said.
func TestVolumeDocument(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                    "0 Retain <nil>",
		"spec: {}":                            "0 Retain <nil>",
		"spec: {size: 10Gi}":                  "10Gi Retain <nil>",
		"spec: {size: 65536}":                 "64Ki Retain <nil>",
		"spec: {reclaim: Delete}":             "0 Delete <nil>",
		"spec: {ownership: {mode: \"0700\"}}": "0 Retain 0700",
		"spec: {ownership: {uid: 999, gid: 0}, size: 1.5Gi, reclaim: Retain}": "1536Mi Retain ",
	} {
		docs, ps := Decode("f.yaml", []byte(volumeHead+text))
		if len(ps) > 0 || len(docs) != 1 || docs[0].Volume == nil || docs[0].Object == nil || docs[0].Name != "volume/data" {
			t.Errorf("%s: %v", text, ps)
			continue
		}
		v := docs[0].Volume
		mode := "<nil>"
		if v.Ownership != nil {
			mode = string(v.Ownership.Mode)
		}
		if got := fmt.Sprintf("%s %s %s", v.Size, v.Reclaim, mode); got != want {
			t.Errorf("%s: %s, expected %s", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"spec: {size: 1}":                      "f.yaml:4:8: spec.size: expected at least 64Ki",
		"spec: {size: -5Gi}":                   "f.yaml:4:14: spec.size",
		"spec: {size: big}":                    `expected an amount such as "256Mi"`,
		"spec: {reclaim: delete}":              `f.yaml:4:8: spec.reclaim: expected one of Retain, Delete`,
		"spec: {ownership: {}}":                "expected at least one of uid, gid, mode",
		"spec: {ownership: {mode: \"99\"}}":    "f.yaml:4:20: spec.ownership.mode: expected permissions",
		"spec: {ownership: {when: fresh}}":     `unknown field "when"`,
		"spec: {ownership: {uid: 4294967295}}": "is nobody's id",
		"spec: {resources: {requests: {}}}":    "resources has another name here; use size: 10Gi",
		"spec: {accessModes: [ReadWriteMany]}": "accessModes has another name here",
		"size: 10Gi":                           `unknown field "size"`,
		"data: {a: b}":                         `unknown field "data"`,
		"spec: [size]":                         "expected an object",
	} {
		docs, ps := Decode("f.yaml", []byte(volumeHead+text))
		if len(ps) == 0 || !strings.Contains(ps[0].Error(), want) || docs[0].Valid() || ps[0].Name != "volume/data" {
			t.Errorf("%s: %v, expected %s", text, ps, want)
		}
	}
}

// Sizes that differ are told where they are, of a document and of several sandboxes, in
// whatever order. A size that is given by some only is the one.
func TestSizeConflicts(t *testing.T) {
	t.Parallel()
	doc := func(size string) string { return volumeHead + "spec: {size: " + size + "}\n" }
	for name, c := range map[string]struct {
		docs []string
		want []string
	}{
		"one":                 {[]string{sized("a", "1Gi")}, nil},
		"same":                {[]string{sized("a", "1Gi"), sized("b", "1024Mi")}, nil},
		"some":                {[]string{sized("a", "1Gi"), sized("b", "")}, nil},
		"document alone":      {[]string{sized("a", ""), doc("1Gi")}, nil},
		"document, same":      {[]string{doc("1Gi"), sized("a", "1Gi")}, nil},
		"document without":    {[]string{volumeHead, sized("a", "1Gi")}, nil},
		"document, differs":   {[]string{doc("1Gi"), sized("a", "2Gi")}, []string{`f.yaml:12:53: size: volume "data" has the size 2Gi here and 1Gi at f.yaml:4:8`}},
		"document comes last": {[]string{sized("a", "2Gi"), doc("1Gi")}, []string{`f.yaml:7:53: size: volume "data" has the size 2Gi here and 1Gi at f.yaml:12:8`}},
		"sandboxes":           {[]string{sized("a", "1Gi"), sized("b", "2Gi")}, []string{"f.yaml:7:53: size:", "f.yaml:15:53: size:"}},
		"one of three":        {[]string{sized("a", "1Gi"), sized("b", "2Gi"), sized("c", "1Gi")}, []string{"f.yaml:7:53: size:", "f.yaml:15:53: size:", "f.yaml:23:53: size:"}},
		"declared twice":      {[]string{volumeHead, volumeHead}, []string{`f.yaml:5:1: metadata.name: Volume "data" is also defined at f.yaml:1:1`}},
		"another name":        {[]string{strings.Replace(doc("1Gi"), "name: data", "name: other", 1), sized("a", "2Gi")}, nil},
	} {
		_, ps := Decode("f.yaml", []byte(strings.Join(c.docs, "---\n")))
		if len(ps) != len(c.want) {
			t.Errorf("%s: %v, expected %q", name, ps, c.want)
			continue
		}
		for i, w := range c.want {
			if !strings.HasPrefix(ps[i].Error(), w) {
				t.Errorf("%s: %s, expected %s", name, ps[i].Error(), w)
			}
		}
	}
}

// A size that changes restarts nothing: it is set beside what runs.
func TestSizeHash(t *testing.T) {
	t.Parallel()
	var hashes []string
	for _, size := range []string{"", "1Gi", "2Gi"} {
		docs, ps := Decode("f.yaml", []byte(sized("a", size)))
		if len(ps) > 0 {
			t.Fatal(ps)
		}
		hashes = append(hashes, docs[0].hash)
		if size != "" && docs[0].Sandbox.Spec.Volumes[0].Volume.Size == 0 {
			t.Error("the hash has taken the size away")
		}
	}
	if len(slices.Compact(hashes)) != 1 {
		t.Errorf("%q", hashes)
	}
}

// Where a size is only its text tells: a manifest with one is not taken from the record.
func TestSizeRecalled(t *testing.T) {
	t.Parallel()
	text := sized("a", "1Gi")
	docs, _ := Decode("f.yaml", []byte(text))
	e := docs[0].Entry()
	again, _ := Decoder{Known: func(string) *Entry { return &e }}.Decode("f.yaml", []byte(text))
	if len(again) != 1 || len(again[0].Sizes) != 1 || again[0].Sizes[0].Position.Line != 7 {
		t.Errorf("%+v", again)
	}
}

func TestMostVolumes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{MaxVolumes: "", MaxVolumes + 1: "spec.volumes: expected at most 100 volumes, got 101", 500: "expected at most 100 volumes"} {
		var b strings.Builder
		b.WriteString("apiVersion: " + APIVersion + "\nkind: Sandbox\nmetadata: {name: a}\nspec:\n  root: {host: {}}\n  command: [a]\n  volumes:\n")
		for i := range n {
			fmt.Fprintf(&b, "    - {name: v%d, mountPath: /v/%d, tmpfs: {}}\n", i, i)
		}
		_, ps := Decode("f.yaml", []byte(b.String()))
		if want == "" && len(ps) > 0 || want != "" && (len(ps) != 1 || !strings.Contains(ps[0].Error(), want)) {
			t.Errorf("%d: %v", n, ps)
		}
	}
}

// The document says whom a volume belongs to, before a sandbox does.
func TestFreshOwnership(t *testing.T) {
	t.Parallel()
	spec := &VolumeSpec{Ownership: &FreshOwnership{UID: new(uint32(1)), Mode: "0700"}}
	said := &Ownership{UID: new(uint32(2)), GID: new(uint32(3)), When: OwnershipMismatch}
	if o := spec.Fresh(said); *o.UID != 1 || *o.GID != 3 || o.Mode != "0700" || o.When != OwnershipMismatch || *said.UID != 2 {
		t.Errorf("%+v", o)
	}
	if o := spec.Fresh(nil); *o.UID != 1 || o.GID != nil {
		t.Errorf("%+v", o)
	}
	if (*VolumeSpec)(nil).Fresh(said) != said || new(VolumeSpec).Fresh(nil) != nil {
		t.Error("nobody says otherwise")
	}
}
