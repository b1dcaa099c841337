// SPDX-License-Identifier: Apache-2.0

package desired

import "sandboxctl.dev/desired/imageref"

// Reference is the whole reference of a valid image root: with its digest, if it is
// in a registry and has one.
func (i *ImageRoot) Reference() string {
	r, err := imageref.Parse(i.Ref)
	if err != nil {
		return i.Ref // it is not valid
	}
	if r.Kind == imageref.Registry && i.Digest != "" {
		r.Digest = i.Digest
	}
	return r.String()
}

// InRegistry says whether the image is in a registry.
func (i *ImageRoot) InRegistry() bool {
	r, err := imageref.Parse(i.Ref)
	return err == nil && r.Kind == imageref.Registry
}

// At is the reference of the image with a digest.
func (i *ImageRoot) At(digest string) string {
	r, err := imageref.Parse(i.Ref)
	if err != nil || r.Kind != imageref.Registry {
		return i.Reference()
	}
	r.Digest = digest
	return r.String()
}

func (v *Validator) image(field string, i *ImageRoot) {
	r, err := imageref.Parse(i.Ref)
	switch {
	case i.Ref == "":
		v.Missing(field+".ref", "an image such as nginx:1.27")
	case err != nil:
		v.Add(field+".ref", "%v", err)
	case r.Kind != imageref.Registry && r.Kind != imageref.Local:
		v.HostPath(field+".ref", r.Path)
	}
	v.OneOf(field+".pullPolicy", string(i.PullPolicy), string(imageref.PullIfNotPresent), string(imageref.PullAlways), string(imageref.PullNever))
	if i.Digest == "" {
		return
	}
	if err := imageref.CheckDigest(i.Digest); err != nil {
		v.Add(field+".digest", "%v", err)
	} else if r.Digest != "" && r.Digest != i.Digest {
		v.Add(field+".digest", "is not the one in ref; remove one of them")
	}
}
