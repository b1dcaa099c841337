// SPDX-License-Identifier: Apache-2.0

// Package resumption is what is on record of a start that began from a saved state: which one, and
// how far it came. The launcher alone changes it.
package resumption

// Resumption is about the last start that began, or was to begin, from a snapshot or a checkpoint.
// It is replaced, never changed.
type Resumption struct {
	// ID is that of the snapshot, "" of a checkpoint.
	ID string `json:"id,omitempty"`
	// Failed says why the sentry could not restore it. It is not tried again by itself.
	Failed string `json:"failed,omitempty"`
	// Unready says that the application was restored, or is about to be, and that its manifest's
	// command for that has not ended well. A start that was cut short then is done again.
	Unready bool `json:"unready,omitempty"`
}

// Fails is the resumption when the sentry could not restore the state.
func (r *Resumption) Fails(why string) *Resumption { return &Resumption{ID: r.ID, Failed: why} }

// Ready is the resumption when the application may be used.
func (r *Resumption) Ready() *Resumption { return &Resumption{ID: r.ID} }

// Refuses says whether a snapshot could not be restored the last time.
func (r *Resumption) Refuses(id string) bool { return r != nil && r.Failed != "" && r.ID == id }

// Pending says whether the application must not be used as it is.
func (r *Resumption) Pending() bool { return r != nil && r.Unready }

// Began says whether a start began from a snapshot.
func (r *Resumption) Began() bool { return r != nil && r.ID != "" && r.Failed == "" }
