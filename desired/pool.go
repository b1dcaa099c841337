// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"sandboxctl.dev/desired/objects"
	"sandboxctl.dev/desired/scalar"
	"sandboxctl.dev/desired/yamldoc"
)

// PoolDocument declares a pool: places for sandboxes of one template, which claims take.
type PoolDocument struct {
	// `sandboxctl.dev/v1alpha1`.
	APIVersion string `json:"apiVersion"`
	// `SandboxPool`.
	Kind     string   `json:"kind"`
	Metadata Metadata `json:"metadata"`
	Spec     PoolSpec `json:"spec"`
}

// PoolSpec says what claims of a pool get.
type PoolSpec struct {
	// What each claim gets, as the `spec` of a Sandbox. Here the default of `restartPolicy` is
	// `Never`, of `minReadySeconds` 0, and of `ttlAfterFinished` `0s`: a sandbox of a pool is used
	// once. A change is for claims that are made from then on.
	Template Spec `json:"template"`
	// How many places are kept ready for claims, at most 64. Default: 1.
	Size *int `json:"size,omitempty"`
	// How many claims may have a sandbox that has not finished; others wait. Default: no limit.
	Max int `json:"max,omitempty"`
	// What a change of the template does to places that are ready, see
	// [A new template](../guide/pools.md#a-new-template): `OnReplenish` or `Recreate`.
	// Default: `OnReplenish`.
	UpdateStrategy string `json:"updateStrategy,omitempty"`
}

// Values of PoolSpec.UpdateStrategy.
const (
	UpdateOnReplenish = "OnReplenish" // they are used up
	UpdateRecreate    = "Recreate"    // they are made again
)

// MaxPlaces is how many places a pool may keep ready.
const MaxPlaces = 64

// ClaimDocument is a sandbox that is made of the template of a pool.
type ClaimDocument struct {
	// `sandboxctl.dev/v1alpha1`.
	APIVersion string `json:"apiVersion"`
	// `SandboxClaim`.
	Kind     string    `json:"kind"`
	Metadata Metadata  `json:"metadata"`
	Spec     ClaimSpec `json:"spec"`
}

// ClaimSpec is what a claim adds to the template.
type ClaimSpec struct {
	// The name of a SandboxPool.
	Pool string `json:"pool"`
	// The program, instead of `command` and `args` of the template.
	Command []string `json:"command,omitempty"`
	// The arguments of the program, instead of those of the template.
	Args []string `json:"args,omitempty"`
	// Environment variables besides those of the template, and instead of those with the same name.
	Env []EnvVar `json:"env,omitempty"`
	// Volumes besides those of the template.
	Volumes []Volume `json:"volumes,omitempty"`
	// How long the sandbox may run, from the start of its application, as `activeDeadline` of a
	// Sandbox; a change takes effect at once. Default: that of the template.
	TTL *scalar.Duration `json:"ttl,omitempty"`
	// Stop the sandbox and keep its record and its place. Default: `false`.
	Suspend bool `json:"suspend,omitempty"`
}

// Claim is what an entry is made of that a claim stands for.
type Claim struct {
	ClaimSpec
	// From is the pool of what is on record, "" if that is of none.
	From string
	// Max is that of the pool. Reason and Why are set if nothing of the claim may be started now.
	Max         int
	Reason, Why string
}

var (
	poolSchema  = workloadSchema[PoolDocument, PoolSpec](objects.Pool, "template", "the spec of a Sandbox")
	claimSchema = workloadSchema[ClaimDocument, ClaimSpec](ClaimKind, "pool", "the name of a SandboxPool")
)

func workloadSchema[T, S any](kind, field, want string) func() *yamldoc.Schema {
	return SchemaOf(func() yamldoc.Schema {
		required := objectRequired[T](kind)
		required[reflect.TypeFor[T]()]["spec"], required[reflect.TypeFor[S]()] = "an object with "+field, map[string]string{field: want}
		return yamldoc.Schema{Type: reflect.TypeFor[T](), Required: required}
	})
}

func readPool(d *yamldoc.Doc, policy Policy, doc *Document) {
	var pd, own PoolDocument // the second is filled in to be judged: each claim has its own defaults
	if !decodeObject(d, &pd) || !decodeObject(d, &own) {
		return
	}
	s := &pd.Spec
	s.Size, s.UpdateStrategy = cmp.Or(s.Size, new(1)), cmp.Or(s.UpdateStrategy, UpdateOnReplenish)
	v := new(Validator)
	v.OneOf("spec.updateStrategy", s.UpdateStrategy, UpdateOnReplenish, UpdateRecreate)
	switch {
	case *s.Size < 0 || *s.Size > MaxPlaces:
		v.Add("spec.size", "expected 0 to %d, got %d", MaxPlaces, *s.Size)
	case s.Max < 0 || s.Max > 0 && s.Max < *s.Size:
		v.Add("spec.max", "expected at least size, which is %d, got %d; leave it out for no limit", *s.Size, s.Max)
	}
	if s.Template.Suspend {
		v.Add("spec.template.suspend", "is for claims; remove it")
	}
	report(d, v.Errors(), "")
	for _, t := range []*Spec{&s.Template, &own.Spec.Template} { // a sandbox of a pool is used once
		t.RestartPolicy, t.MinReadySeconds = cmp.Or(t.RestartPolicy, RestartNever), cmp.Or(t.MinReadySeconds, new(0))
		t.TTLAfterFinished = cmp.Or(t.TTLAfterFinished, new(scalar.Duration(0)))
	}
	judge(d, policy, &Sandbox{Metadata: own.Metadata, Spec: own.Spec.Template}, func(e FieldError) (string, bool) {
		rest, of := strings.CutPrefix(e.Field, "spec")
		return "spec.template" + rest, of
	})
	doc.Object, doc.Pool = objects.New(objects.Pool, pd.Metadata.Name, s.values(), nil), s
	doc.noteSizes(d, s.Template.Volumes, "spec.template")
}

func readClaim(d *yamldoc.Doc, policy Policy, doc *Document) {
	var cd, own ClaimDocument
	if !decodeObject(d, &cd) || !decodeObject(d, &own) {
		return
	}
	v := new(Validator)
	v.Name("spec.pool", cd.Spec.Pool)
	report(d, v.Errors(), "")
	// What only the template can tell is judged with it.
	s := &own.Spec
	sb := &Sandbox{Metadata: own.Metadata, Spec: Spec{Root: Root{Image: &ImageRoot{Ref: "local:template"}}, Command: s.Command, Args: s.Args, Env: s.Env, Volumes: s.Volumes}}
	sb.Spec.ActiveDeadline, sb.Spec.Suspend = s.TTL, s.Suspend
	judge(d, policy, sb, func(e FieldError) (string, bool) {
		field := strings.Replace(e.Field, "spec.activeDeadline", "spec.ttl", 1)
		return field, (d.Has(field) || e.Missing && e.Field != "spec.root") && !strings.HasSuffix(field, ".valueFrom.field")
	})
	doc.Sandbox, doc.Claim = sb, &Claim{ClaimSpec: cd.Spec}
}

// judge fills in the defaults of a sandbox that a document is about, and reports what is wrong with
// it, where at says that it is to be told.
func judge(d *yamldoc.Doc, policy Policy, sb *Sandbox, at func(FieldError) (string, bool)) {
	sb.APIVersion, sb.Kind = APIVersion, Kind
	Default(sb)
	tell := func(errs []FieldError, reason string) {
		for _, e := range errs {
			if field, told := at(e); told {
				d.Report(field, reason, e.Message)
			} else if strings.HasPrefix(e.Field, "metadata.") {
				d.Report(e.Field, reason, e.Message)
			}
		}
	}
	tell(append(Validate(sb), Lacks(sb)...), "")
	if policy != nil {
		tell(policy.Check(sb), ReasonPolicyDenied)
	}
}

// values are what a pool says, for those who compare two and who print one.
func (s *PoolSpec) values() map[string][]byte {
	out := map[string][]byte{"size": fmt.Append(nil, *s.Size), "updateStrategy": []byte(s.UpdateStrategy)}
	if s.Max > 0 {
		out["max"] = fmt.Append(nil, s.Max)
	}
	var fields map[string]json.RawMessage
	if b, err := json.Marshal(s.Template); err == nil && json.Unmarshal(b, &fields) == nil {
		for name, value := range fields {
			out["template."+name] = value
		}
	}
	return out
}

// Value is what a pool says by one of its keys, such as size.
func (s *PoolSpec) Value(key string) string { return string(s.values()[key]) }
