package main

import (
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// reloaded is what files hold. It is read again when they change, so that a certificate or a key can be renewed without a
// restart.
type reloaded[T any] struct {
	log   *slog.Logger
	load  func() (T, error)
	files []string

	mu     sync.Mutex
	value  T
	stamps []stamp // of what value was read from
	failed []stamp // of what could not be read, and was logged
	looked time.Time
}

// stamp is by which a file is seen to have changed.
type stamp struct {
	modified time.Time
	size     int64
}

// lookInterval is how often the files are looked at, at most.
const lookInterval = time.Second

func newReloaded[T any](log *slog.Logger, load func() (T, error), files ...string) (*reloaded[T], error) {
	r := &reloaded[T]{log: log, load: load, files: files, stamps: stamps(files), looked: time.Now()}
	var err error
	r.value, err = load()
	return r, err
}

// get returns what the files hold. What can't be read takes no other's place: the files may be half written.
func (r *reloaded[T]) get() T {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.looked) < lookInterval {
		return r.value
	}
	r.looked = time.Now()
	now := stamps(r.files)
	if slices.Equal(now, r.stamps) {
		return r.value
	}
	value, err := r.load()
	if err != nil { // it is tried again: who may read a file can change without a trace here
		if !slices.Equal(now, r.failed) {
			r.failed = now
			r.log.Error("files have changed and can't be read: what they held before stays in use", "files", r.files, "error", err)
		}
		return r.value
	}
	r.value, r.stamps, r.failed = value, now, nil
	r.log.Info("files read again", "files", r.files)
	return value
}

func stamps(files []string) []stamp {
	all := make([]stamp, len(files))
	for i, file := range files {
		if info, err := os.Stat(file); err == nil {
			all[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return all
}
