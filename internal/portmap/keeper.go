package portmap

import (
	"context"
	"sync/atomic"
	"time"
)

// How often a Keeper writes. A second after it was granted, a mapping shall be in
// the file. It may have been granted just after a write began, so the next one
// must end within that second: 200 ms are for waiting for the kernel, whose
// changes come first, and for the disk.
const (
	saveEvery = 800 * time.Millisecond
	saveRetry = 30 * time.Second // at most, after errors
)

// Keeper writes the mappings to their LeaseFile after changes.
type Keeper struct {
	file  atomic.Pointer[LeaseFile]
	list  func() []Mapping
	logf  func(string, ...any)
	dirty chan struct{}
	fault atomic.Pointer[string]
}

// NewKeeper makes a Keeper of what list gives. Run must run, and Use name the
// file.
func NewKeeper(list func() []Mapping, logf func(string, ...any)) *Keeper {
	return &Keeper{list: list, logf: logf, dirty: make(chan struct{}, 1)}
}

// Use makes the Keeper write this file from now on; nil: none. Another file that
// it wrote before stays as it is.
func (k *Keeper) Use(file *LeaseFile) {
	k.file.Store(file)
	k.Changed()
}

// Changed says that the mappings are no longer those of the last write. It does
// not wait.
func (k *Keeper) Changed() {
	select {
	case k.dirty <- struct{}{}:
	default:
	}
}

// Fault says why the file is not up to date, "" when it is or soon will be.
func (k *Keeper) Fault() string {
	if p := k.fault.Load(); p != nil {
		return *p
	}
	return ""
}

// Run writes at once after a change, but not more often than every 800 ms, until
// ctx ends, and then once more. What could not be written is tried again with the next
// change, and else after ever longer waits.
func (k *Keeper) Run(ctx context.Context) {
	defer k.save()
	var again <-chan time.Time
	for retry := saveEvery; ; {
		select {
		case <-ctx.Done():
			return
		case <-k.dirty:
		case <-again:
		}
		began := time.Now()
		if k.save() {
			again, retry = nil, saveEvery
		} else {
			again, retry = time.After(retry), min(2*retry, saveRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(saveEvery - time.Since(began)):
		}
	}
}

// save writes the mappings of now. The first failure of a spell is logged.
func (k *Keeper) save() bool {
	var err error
	file := k.file.Load()
	if file != nil {
		err = file.Write(k.list())
	}
	switch {
	case err != nil:
		if k.Fault() == "" {
			k.logf("leases would not survive a restart: %v; trying again", err)
		}
		text := err.Error()
		k.fault.Store(&text)
	case k.Fault() != "":
		k.logf("leases survive a restart again")
		k.fault.Store(nil)
	}
	return err == nil
}
