// SPDX-License-Identifier: Apache-2.0

// Package objects holds what documents of kind Config, Secret and Volume say: values by key,
// some of them in files of the host. It knows nothing of manifests, files and YAML.
//
// Values may be secret. No method shows one but Value; an ID tells whether they have
// changed and, without the key of the host, nothing about what they are.
package objects
