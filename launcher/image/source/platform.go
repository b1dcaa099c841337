// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// variants are those of an architecture that this host runs, the best first. What the
// processor has beyond them is not looked at: an image for everybody is there as well.
var variants = map[string][]string{
	"amd64": {"", "v1"},
	"arm64": {"v8", ""},
	"arm":   {"v7", "v6", "v5", ""},
}

// forPlatform chooses from an index.
func forPlatform(all []v1.Descriptor) (v1.Descriptor, error) {
	var names []string
	for _, variant := range wanted() {
		for _, d := range all {
			if p := d.Platform; p != nil && p.OS == "linux" && p.Architecture == runtime.GOARCH && p.Variant == variant {
				return d, nil
			}
		}
	}
	for _, d := range all {
		switch {
		case d.Platform == nil && len(all) == 1:
			return d, nil // the configuration says more
		case d.Platform != nil && d.Platform.OS != "unknown":
			names = append(names, d.Platform.String())
		}
	}
	slices.Sort(names)
	return v1.Descriptor{}, fmt.Errorf("%w: this host is linux/%s, there is %s", ErrPlatform, runtime.GOARCH, orNone(slices.Compact(names)))
}

func wanted() []string {
	if v, ok := variants[runtime.GOARCH]; ok {
		return v
	}
	return []string{""}
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names[:min(len(names), 20)], ", ")
}

// checkPlatform refuses an image for others, where no index had a say.
func (i *Image) checkPlatform() error {
	i.Platform = i.Config.OS + "/" + i.Config.Architecture
	if i.Config.Variant != "" {
		i.Platform += "/" + i.Config.Variant
	}
	// Some tools leave both empty.
	if os, arch := i.Config.OS, i.Config.Architecture; (os != "" && os != "linux") || (arch != "" && arch != runtime.GOARCH) {
		return fmt.Errorf("%w: this host is linux/%s, the image is for %s", ErrPlatform, runtime.GOARCH, i.Platform)
	}
	return nil
}
