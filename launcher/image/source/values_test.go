// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// counting counts what a server sends.
type counting struct{ n atomic.Int64 }

type countingWriter struct {
	http.ResponseWriter
	c *counting
}

func (c *counting) of(w http.ResponseWriter) http.ResponseWriter { return countingWriter{w, c} }

func (c *counting) total() int64 { return c.n.Load() }

func (w countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.c.n.Add(int64(n))
	return n, err
}

// A document of very many small values takes hundreds of times its length when it is
// decoded. It is refused before.
func TestManyValues(t *testing.T) {
	fill := func(before, value, after string, most int) []byte {
		n := (most - len(before) - len(after)) / (len(value) + 1)
		return []byte(before + strings.Repeat(value+",", n) + value + after)
	}
	for name, c := range map[string]struct {
		b      []byte
		decode func([]byte) error
	}{
		"layers":       {fill(`{"layers":[`, "{}", "]}", mostManifest), decoder[v1.Manifest]},
		"manifests":    {fill(`{"manifests":[`, "{}", "]}", mostManifest), decoder[v1.IndexManifest]},
		"annotations":  {fill(`{"annotations":{`, `"":""`, "}}", mostManifest), decoder[v1.Manifest]},
		"history":      {fill(`{"history":[`, "{}", "]}", mostConfig), decoder[v1.ConfigFile]},
		"history null": {fill(`{"history":[`, "null", "]}", mostConfig), decoder[v1.ConfigFile]},
		"environment":  {fill(`{"config":{"Env":[`, `""`, "]}}", mostConfig), decoder[v1.ConfigFile]},
		"archive":      {fill(`[`, "{}", "]", mostManifest), decoder[[]dockerEntry]},
		"brackets":     {[]byte(strings.Repeat("[", mostConfig)), decoder[v1.ConfigFile]},
		"nobody reads": {fill(`{"x":[`, "1", "]}", mostConfig), decoder[v1.ConfigFile]},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := c.decode(c.b)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrInvalid) || got > 1<<20 {
			t.Errorf("%s: %v, with %d MiB", name, err, got>>20)
		}
	}
	// What may be in a document is no value: text with commas, escapes, a long environment.
	text := `{"config":{"Env":["A=` + strings.Repeat(`,{[\"\\`, 500_000) + `"]},"history":[` + strings.Repeat(`{"created_by":"a, b"},`, 500) + `{}]}`
	if !json.Valid([]byte(text)) {
		t.Fatal("not JSON")
	}
	if err := decoder[v1.ConfigFile]([]byte(text)); err != nil {
		t.Error(err)
	}
}

func decoder[T any](b []byte) error {
	_, err := decode[T]("document", b)
	return err
}

// A document that could be taken for a list of images and for one is refused, whatever the
// registry calls it.
func TestAmbiguous(t *testing.T) {
	t.Parallel()
	const index, manifest = types.OCIImageIndex, types.OCIManifestSchema1
	for name, c := range map[string]struct {
		mediaType types.MediaType
		doc       string
		is, bad   bool
	}{
		"an index":                  {index, `{"manifests":[]}`, true, false},
		"an index without a type":   {"", `{"manifests":[]}`, true, false},
		"a manifest":                {manifest, `{"layers":[],"config":{}}`, false, false},
		"a manifest without a type": {"", `{"layers":[]}`, false, false},
		"another type":              {"text/plain", `{"mediaType":"application/vnd.oci.image.index.v1+json"}`, true, false},
		"no list":                   {manifest, `{"layers":[],"manifests":null}`, false, false},
		"both":                      {"", `{"layers":[],"manifests":[]}`, false, true},
		"both, a manifest":          {manifest, `{"layers":[],"manifests":[]}`, false, true},
		"both, an index":            {index, `{"layers":[],"manifests":[]}`, false, true},
		"an index with a config":    {index, `{"config":{},"manifests":[]}`, false, true},
		"in other letters":          {manifest, `{"layers":[],"Manifests":[]}`, false, true},
		"not a list":                {manifest, `{"layers":[],"manifests":{}}`, false, true},
		"called an index":           {index, `{"layers":[]}`, false, true},
		"called a manifest":         {manifest, `{"manifests":[]}`, false, true},
		"called so by itself":       {"", `{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","manifests":[]}`, false, true},
		"called so by the registry": {index, `{"mediaType":"application/vnd.oci.image.manifest.v1+json"}`, false, true},
		"no document":               {manifest, `<html>`, false, true},
	} {
		is, err := isIndex(c.mediaType, []byte(c.doc))
		if is != c.is || (err != nil) != c.bad || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, %v", name, is, err)
		}
		_, err = choose(t.Context(), []byte(c.doc), c.mediaType, func(context.Context, v1.Descriptor) ([]byte, error) { return nil, ErrMissing })
		if (err == nil) != (!c.is && !c.bad) {
			t.Errorf("%s: chosen: %v", name, err)
		}
	}
}
