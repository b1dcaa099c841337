// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"sandboxctl.dev/actual"
	"sandboxctl.dev/actual/operation"
	"sandboxctl.dev/desired"
	"sandboxctl.dev/desired/envfile"
	"sandboxctl.dev/desired/scalar"
)

// ImageSource names the image of a root.
type ImageSource struct {
	Ref    string `json:"ref"`
	Digest string `json:"digest"`
}

// Image is the image of a root, as far as a set-up depends on it.
type Image struct {
	ImageSource

	Config ImageConfig
	// Passwd and Group are its /etc/passwd and /etc/group, nil if it has none.
	Passwd, Group []byte
}

// ImageConfig is what an image says of its application.
type ImageConfig struct {
	Entrypoint, Cmd, Env         []string
	User, WorkingDir, StopSignal string
}

// Record is what goes on record, nil if there is no image.
func (img *Image) Record() *actual.Image {
	if img == nil {
		return nil
	}
	return &actual.Image{Ref: img.Ref, Digest: img.Digest, StopSignal: img.StopSignal()}
}

// fromImage takes the root and the defaults of the process from an image, by the
// rules of Kubernetes.
func (st *Setup) fromImage(sb *desired.Sandbox, img *Image) error {
	if img == nil {
		return errors.New("spec.root.image: the image has not been looked up")
	}
	st.Image = img
	// A root that is an image is served to nobody: there is no path to it.
	st.App().Root = Source{Image: &img.ImageSource, ReadOnly: true, Field: "spec.root.image"}
	spec, err := st.processSpec(sb)
	if err != nil {
		return err
	}
	spec.Root.Readonly = st.App().Overlay == desired.OverlayNone
	st.App().Spec = spec
	p := spec.Process
	if len(p.Args) == 0 || p.Args[0] == "" {
		return operation.Permanentf("spec.command: is missing, and the image %s has no command of its own", img.Ref)
	}
	if p.Cwd == "" {
		p.Cwd = path.Join("/", img.Config.WorkingDir)
	}
	if err := img.setUser(p, sb.Spec.User); err != nil {
		return operation.Permanentf("%w", err)
	}
	p.Env = img.withHome(p)
	if err := checkStrings(p); err != nil {
		return operation.Permanentf("spec.root.image: its configuration %w", err)
	}
	if pol := st.Policy; pol != nil && !*pol.RootUser && p.User.UID == 0 {
		return operation.Permanentf("spec.root.image: the host policy (%s) does not allow applications to run as root of their sandbox, as this image does; set spec.user", pol.Source())
	}
	return nil
}

// What Linux takes, without the NUL at the end: a path, and one argument or variable.
// maxUserName is more than any user database has.
const (
	maxPath     = 4096 - 1
	maxArgument = 32*4096 - 1
	maxUserName = 512
)

// checkStrings refuses what no program can be started with. Of a directory of very many
// names the sentry would make one after the other, for minutes; a long name of a program
// would be in each line of the daemon's log that tells of it.
func checkStrings(p *specs.Process) error {
	for _, s := range slices.Concat(p.Args, p.Env, []string{p.Cwd}) {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("holds a NUL: %.60q", s)
		}
		if len(s) > maxArgument {
			return fmt.Errorf("has an argument, variable or path of %d bytes, at most %d can be passed to a program: %.60q", len(s), maxArgument, s)
		}
	}
	for what, s := range map[string]string{"program": p.Args[0], "working directory": p.Cwd} {
		if len(s) > maxPath {
			return fmt.Errorf("names a %s of %d bytes, a path has at most %d: %.60q", what, len(s), maxPath, s)
		}
	}
	return nil
}

// expand gives the command and the environment of a manifest, over those of the image
// that its root is, if it is one. from are the variables of its envFrom.
func (st *Setup) expand(sb *desired.Sandbox, from []envfile.Variable) (args, env []string, err error) {
	args, env, err = expandProcess(sb, from)
	img := st.Image
	if img == nil || err != nil {
		return args, env, err
	}
	args = img.args(&sb.Spec, args)
	set := map[string]bool{}
	for _, v := range from {
		set[v.Name] = true
	}
	for _, e := range sb.Spec.Env {
		set[e.Name] = true
	}
	if !set["PATH"] && slices.ContainsFunc(img.Config.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		env = env[:len(env)-1] // the default is for who has none
	}
	return args, append(img.env(set), env...), nil
}

// args is what a process executes. given are command and args of the manifest: a
// command replaces the entrypoint, and then the arguments of the image are not meant
// for it; args alone replace those.
func (img *Image) args(s *desired.Spec, given []string) []string {
	switch {
	case len(s.Command) > 0:
		return given
	case len(s.Args) > 0:
		return slices.Concat(img.Config.Entrypoint, given)
	}
	return slices.Concat(img.Config.Entrypoint, img.Config.Cmd)
}

// env is the environment of the image without the variables that are set elsewhere.
func (img *Image) env(set map[string]bool) (out []string) {
	for _, e := range img.Config.Env {
		if name, _, ok := strings.Cut(e, "="); ok && name != "" && !set[name] {
			out = append(out, e)
		}
	}
	return out
}

// withHome is the environment of a process with the HOME of its user, if nobody has set
// one.
func (img *Image) withHome(p *specs.Process) []string {
	if slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		return p.Env
	}
	return append([]string{"HOME=" + img.home(p.User.UID)}, p.Env...)
}

// setUser has a process run as who the manifest says, or else the image. Names are
// those of the image.
func (img *Image) setUser(p *specs.Process, asked *desired.User) error {
	if ids := numbers(asked); ids != nil {
		setUser(p, ids) // which the author has given, whatever the image says of them
		return nil
	}
	name, field := img.Config.User, "spec.root.image: the user of the image"
	who := &User{}
	if asked != nil {
		name, field = asked.Name, "spec.user.name"
		who.Groups = slices.Clone(asked.Groups)
	}
	if len(name) > maxUserName {
		return fmt.Errorf("%s: its name has %d bytes, expected at most %d: %.60q", field, len(name), maxUserName, name)
	}
	u, err := img.lookUp(name)
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	for _, id := range append([]int{u.Uid, u.Gid}, u.Sgids...) {
		if id < 0 || id >= noID {
			return fmt.Errorf("%s: %d is no id", field, id)
		}
	}
	who.UID, who.GID = uint32(u.Uid), uint32(u.Gid)
	for _, g := range u.Sgids {
		who.Groups = append(who.Groups, uint32(g))
	}
	slices.Sort(who.Groups)
	who.Groups = slices.Compact(who.Groups)
	setUser(p, who)
	return nil
}

// lookUp finds a user, as USER[:GROUP] by names or numbers, in the files of the image.
// A number without an entry is good; "" is root.
func (img *Image) lookUp(name string) (*user.ExecUser, error) {
	var passwd, group io.Reader // none, and not an empty one
	if img.Passwd != nil {
		passwd = bytes.NewReader(img.Passwd)
	}
	if img.Group != nil {
		group = bytes.NewReader(img.Group)
	}
	return user.GetExecUser(name, &user.ExecUser{Home: "/"}, passwd, group)
}

// home is the home directory of a user, "/" if the image does not say.
func (img *Image) home(uid uint32) string {
	u, err := img.lookUp(strconv.FormatUint(uint64(uid), 10))
	if err != nil || !path.IsAbs(u.Home) {
		return "/"
	}
	return u.Home
}

// noID is (uid_t)-1, which system calls take for "leave it as it is".
const noID = 1<<32 - 1

// StopSignal is the signal that the image wants to be stopped by, "" if it does not
// say, or says what is no signal.
func (img *Image) StopSignal() string {
	if img == nil {
		return ""
	}
	if _, err := scalar.ParseSignal(img.Config.StopSignal); err != nil {
		return ""
	}
	return img.Config.StopSignal
}
