// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/cmd/sandboxctl/show"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/manifestdir"
	"sandboxctl.dev/desired/yamldoc"
)

// input is one file of manifests that -f names.
type input struct {
	path string // "-" is standard input
	// dir is the directory it was found in, "" if it was named itself.
	dir string
}

// expand names the manifest files of a path: itself, or those below a
// directory.
func expand(p string) ([]input, error) {
	if p == "-" {
		return []input{{path: p}}, nil
	}
	if strings.HasPrefix(p, "http://") || strings.HasPrefix(p, "https://") {
		return nil, exit.Usagef("-f: nothing is fetched from the network; pipe it: curl -fsS %s | sandboxctl apply -f -", show.Clean(p))
	}
	info, err := os.Stat(p)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	if !info.IsDir() {
		return []input{{path: p}}, nil
	}
	var out []input
	var rules manifestdir.IgnoreRules
	err = filepath.WalkDir(p, func(f string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(p, f)
		if err != nil {
			return err
		}
		switch {
		case f != p && (strings.HasPrefix(e.Name(), ".") || rules.Match(rel, e.IsDir())):
			if e.IsDir() {
				return fs.SkipDir
			}
		case e.IsDir():
			more, err := ignoreRules(p, rel)
			if err != nil {
				return err
			}
			rules = append(rules, more...)
		case manifestdir.IsManifestName(f):
			out = append(out, input{path: f, dir: p})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("read manifests: no .yaml, .yml or .json file in %s", p)
	}
	return out, nil
}

// ignoreRules reads the ignore file of a directory below top, if there is one.
func ignoreRules(top, rel string) (manifestdir.IgnoreRules, error) {
	root, err := os.OpenRoot(top)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := openRegular(root, filepath.Join(rel, desired.IgnoreFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(top, rel, desired.IgnoreFile), err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, manifestdir.MaxIgnoreBytes))
	if err != nil {
		return nil, err
	}
	if rel == "." {
		rel = ""
	}
	return manifestdir.ParseIgnore(rel, string(b)), nil
}

// readInput reads one input. What was named may be a pipe, which may be slow: the
// end of ctx ends the waiting for it.
func (v verbs) readInput(ctx context.Context, in input) ([]byte, error) {
	r := v.Stdin
	if in.path != "-" {
		f, err := in.open()
		if err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil || info.IsDir() {
			return nil, fmt.Errorf("read manifest %s: expected a file", in.path)
		}
		r = f
	}
	type result struct {
		b   []byte
		err error
	}
	// Reading standard input can't be interrupted; who does not want it any more
	// is about to end.
	done := make(chan result, 1)
	go func() {
		b, err := io.ReadAll(io.LimitReader(r, yamldoc.MaxFileBytes+1))
		done <- result{b, err}
	}()
	var res result
	select {
	case <-ctx.Done():
		res.err = context.Cause(ctx)
	case res = <-done:
	}
	if res.err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", in.path, res.err)
	}
	return res.b, nil
}

// open opens the file. One that was found in a directory is whatever the author
// of the directory has put there: it is read only if it is a regular file there.
func (in *input) open() (*os.File, error) {
	if in.dir == "" {
		return os.OpenFile(in.path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	}
	root, err := os.OpenRoot(in.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	rel, err := filepath.Rel(in.dir, in.path)
	if err != nil {
		return nil, err
	}
	f, err := openRegular(root, rel)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.path, err)
	}
	return f, nil
}

// openRegular opens a regular file below a directory and nothing else, which
// could block, or act.
func openRegular(root *os.Root, name string) (*os.File, error) {
	if info, err := root.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("expected a regular file, it is a %s", info.Mode().Type())
	}
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("expected a regular file: %w", err)
	}
	return f, nil
}
