// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"reflect"

	"sandboxctl.dev/desired/networks"
	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/yamldoc"
)

// NetworkDocument declares a network that sandboxes join by its name.
type NetworkDocument struct {
	// `sandboxctl.dev/v1alpha1`.
	APIVersion string `json:"apiVersion"`
	// `Network`.
	Kind     string            `json:"kind"`
	Metadata Metadata          `json:"metadata"`
	Spec     networks.Declared `json:"spec,omitzero"`
}

var networkSchema = SchemaOf(func() yamldoc.Schema {
	return yamldoc.Schema{Type: reflect.TypeFor[NetworkDocument](), Required: objectRequired[NetworkDocument](objects.Network)}
})

func readNetwork(d *yamldoc.Doc, policy Policy, doc *Document) {
	var nd NetworkDocument
	if !decodeObject(d, &nd) {
		return
	}
	nd.Spec.Fill()
	v := new(Validator)
	v.metadata(&nd.Metadata)
	nd.Spec.Check("spec", v.Add)
	report(d, v.Errors(), "")
	if policy != nil {
		report(d, policy.CheckNetwork("kind"), ReasonPolicyDenied)
	}
	doc.Object, doc.Network = objects.New(objects.Network, nd.Metadata.Name, nd.Spec.Values(), nil), &nd.Spec
}

// Network is what a document declares of a network, nil if none does.
func (os Objects) Network(name string) *networks.Declared {
	if o := os.Lookup(objects.Name(objects.Network, name)); o != nil {
		return o.Network
	}
	return nil
}
