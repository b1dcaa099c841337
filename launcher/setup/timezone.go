// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"slices"
	"strings"

	"sandboxctl.dev/desired/envfile"
	"sandboxctl.dev/desired/zone"
)

// UseTimezone gives the sandbox of a manifest a time zone, nil for none. TZ is set too:
// many programs read nothing else, and the one that an image has would win over the files.
// vars are the variables that come from files: a TZ among them is the author's.
func (st *Setup) UseTimezone(z *zone.Zone, vars []envfile.Variable) {
	if z == nil {
		return
	}
	app := st.App()
	app.Root.Zone = z
	if slices.ContainsFunc(vars, func(v envfile.Variable) bool { return v.Name == "TZ" }) {
		return
	}
	tz := z.Name
	if app.Root.Host && !z.Installed {
		tz = "" // nothing finds it below /usr, which is the host's
	}
	app.Spec.Process.Env = withTZ(app.Spec.Process.Env, tz)
	if app.Private != nil {
		app.Private.Process.Env = withTZ(app.Private.Process.Env, tz)
	}
}

// withTZ is an environment with another TZ, or none.
func withTZ(env []string, tz string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, "TZ=") })
	if tz != "" {
		env = append(env, "TZ="+tz)
	}
	return env
}
