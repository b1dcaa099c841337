// SPDX-License-Identifier: Apache-2.0

package oneoff

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/process"
	"sandboxctl.dev/cmd/sandboxctl/exit"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/imageref"
	"sandboxctl.dev/launcher/pidone"
)

// beyond is how much later than the timeout of its caller the daemon stops a sandbox: for a
// caller that is stopped itself.
const beyond = 10 * time.Second

// Options are what a caller asks of its sandbox.
type Options struct {
	Name        string
	From        string // a pool
	Image, Root string
	PullPolicy  imageref.PullPolicy // of the image, "" for the default
	Memory, CPU string
	Timeout     time.Duration
	Volumes     []string
	Network     string
	Egress      []string
	Labels      map[string]string
}

// Register adds the options as flags.
func (o *Options) Register(fl *pflag.FlagSet) {
	fl.StringVar(&o.Name, "name", "", "the name of the sandbox (default: one that nobody has)")
	fl.StringVar(&o.From, "from", "", "a SandboxPool, whose template is used instead of the flags for a root, limits and networks")
	fl.StringVar(&o.Image, "image", "", "an image as the root, as spec.root.image.ref (default: a view of the host's programs)")
	fl.StringVar(&o.Root, "root", "", "a directory of the host as the root, as spec.root.dir")
	fl.StringVar(&o.Memory, "memory", "", "how much memory it may use, as 256Mi")
	fl.StringVar(&o.CPU, "cpu", "", "how many processors it may use, as 500m or 2")
	fl.DurationVar(&o.Timeout, "timeout", 0, "end the command after this time, its start included (0: never)")
	fl.StringArrayVarP(&o.Volumes, "volume", "v", nil, "SOURCE:PATH[:ro], with a path of the host or the name of a volume as SOURCE (repeatable)")
	fl.StringVar(&o.Network, "network", "", "none, host, or the name of a network of sandboxes (default: none)")
	fl.StringArrayVar(&o.Egress, "egress", nil, "what it may reach, as an entry of spec.network.egress.allow; nothing else is allowed (repeatable)")
}

// Manifest is that of a sandbox for this process. Its application does nothing: it is there for
// as long as the command of the caller, which is started beside it. The command and its
// environment are in no file.
func (o *Options) Manifest() (text []byte, caller process.Identity, err error) {
	caller, err = self()
	if err != nil {
		return nil, caller, err
	}
	text, err = o.ManifestFor(caller, nil)
	return text, caller, err
}

// ManifestFor is Manifest for another process, as the daemon for which a client asks.
func (o *Options) ManifestFor(caller process.Identity, client *Client) (text []byte, err error) {
	kind, spec := desired.Kind, map[string]any(nil)
	if o.From == "" {
		spec, err = o.spec()
	} else {
		kind = desired.ClaimKind
		spec, err = o.claim()
	}
	if err != nil {
		return nil, err
	}
	o.Name = cmp.Or(o.Name, "run-"+actual.NewUID()[:12])
	value, err := json.Marshal(annotation{o.Name, caller, client})
	if err != nil {
		return nil, err
	}
	metadata := map[string]any{"name": o.Name, "annotations": map[string]string{Annotation: string(value)}}
	if len(o.Labels) > 0 {
		metadata["labels"] = o.Labels
	}
	return yaml.Marshal(map[string]any{"apiVersion": desired.APIVersion, "kind": kind, "spec": spec, "metadata": metadata})
}

// hold is an application that does nothing.
func hold() []string {
	if !pidone.Available() {
		return []string{"sleep", "infinity"}
	}
	return pidone.Hold()
}

// claim is the spec of a claim of a pool.
func (o *Options) claim() (spec map[string]any, err error) {
	for flag, given := range map[string]bool{
		"image": o.Image != "", "root": o.Root != "", "memory": o.Memory != "", "cpu": o.CPU != "", "network": o.Network != "", "egress": len(o.Egress) > 0,
	} {
		if given {
			return nil, exit.Usagef("--%s is what the template of the pool says; give --from or --%s", flag, flag)
		}
	}
	spec = map[string]any{"pool": o.From, "command": hold()}
	if o.Timeout < 0 {
		return nil, exit.Usagef("--timeout: expected 0s or more, got %s", o.Timeout)
	}
	if o.Timeout > 0 {
		spec["ttl"] = (o.Timeout + beyond).String()
	}
	spec["volumes"], err = Mounts(o.Volumes)
	return spec, err
}

func (o *Options) spec() (spec map[string]any, err error) {
	spec = map[string]any{
		"command": hold(), "restartPolicy": desired.RestartNever, "terminationGracePeriod": "0s", "minReadySeconds": 0,
	}
	if spec["root"], err = o.root(); err != nil {
		return nil, err
	}
	resources := map[string]string{}
	for field, value := range map[string]string{"memory": o.Memory, "cpu": o.CPU} {
		if value != "" {
			resources[field] = value
		}
	}
	spec["resources"] = resources
	if o.Timeout < 0 {
		return nil, exit.Usagef("timeout: expected 0s or more, got %s", o.Timeout)
	}
	if o.Timeout > 0 {
		spec["activeDeadline"] = (o.Timeout + beyond).String()
	}
	if spec["volumes"], err = Mounts(o.Volumes); err != nil {
		return nil, err
	}
	if spec["network"], err = o.network(); err != nil {
		return nil, err
	}
	return spec, nil
}

func (o *Options) root() (map[string]any, error) {
	switch {
	case o.Image != "" && o.Root != "":
		return nil, exit.Usagef("image and root are both the root; give one of them")
	case o.Image != "":
		image := map[string]any{"ref": o.Image}
		if o.PullPolicy != "" {
			image["pullPolicy"] = o.PullPolicy
		}
		return map[string]any{"image": image}, nil
	case o.Root != "":
		dir, err := filepath.Abs(o.Root)
		return map[string]any{"dir": dir}, err
	}
	return map[string]any{"host": map[string]any{}}, nil
}

func (o *Options) network() (map[string]any, error) {
	n := map[string]any{}
	switch o.Network {
	case "none", "host":
		if len(o.Egress) > 0 {
			return nil, exit.Usagef("egress is for networks of sandboxes, and there is none with network %s", o.Network)
		}
		n["mode"] = o.Network
	case "":
	default:
		n["join"] = []string{o.Network}
	}
	if len(o.Egress) > 0 {
		n["egress"] = map[string]any{"default": "deny", "allow": o.Egress}
	}
	return n, nil
}

// Mounts are volumes that are written as for docker run.
func Mounts(texts []string) ([]map[string]any, error) {
	out := []map[string]any{}
	for i, text := range texts {
		source, target, _ := strings.Cut(text, ":")
		target, readOnly := strings.CutSuffix(target, ":ro")
		if source == "" || !path.IsAbs(target) || strings.Contains(target, ":") {
			return nil, exit.Usagef("volume: expected SOURCE:PATH or SOURCE:PATH:ro with an absolute PATH, got %q", text)
		}
		v := map[string]any{"name": fmt.Sprintf("v%d", i), "mountPath": target, "readOnly": readOnly}
		if strings.Contains(source, "/") {
			dir, err := filepath.Abs(source)
			if err != nil {
				return nil, err
			}
			v["hostPath"] = dir
		} else {
			v["volume"] = map[string]string{"name": source}
		}
		out = append(out, v)
	}
	return out, nil
}
