// SPDX-License-Identifier: Apache-2.0

// Package puller fills the store of images: it pulls from registries, reads layouts and
// archives, and imports root file systems. What it reads comes from people who are not
// trusted, and what it links starts slowly: it is for the program sandboxctl-image only.
package puller
