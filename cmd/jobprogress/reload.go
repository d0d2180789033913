package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

// files are those that are read again when they change, and at a SIGHUP: certificates, keys and secrets are renewed
// without a restart.
type files struct {
	log *slog.Logger
	all []interface{ reload() }
}

// run waits for SIGHUPs until ctx ends. It returns nil.
func (f *files) run(ctx context.Context) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
			f.log.Info("SIGHUP: reading certificates, keys and secrets again", "files", len(f.all))
			for _, one := range f.all {
				one.reload()
			}
		}
	}
}

// reload returns a function for what files hold now, as load reads them.
func reload[T any](f *files, load func() (T, error), names ...string) (func() T, error) {
	r := &reloaded[T]{log: f.log, load: load, files: names, stamps: stamps(names), looked: time.Now()}
	var err error
	r.value, err = load()
	f.all = append(f.all, r)
	return r.get, err
}

// reloaded is what files hold.
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

// get returns what the files hold.
func (r *reloaded[T]) get() T {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.looked) < lookInterval {
		return r.value
	}
	r.looked = time.Now()
	if now := stamps(r.files); !slices.Equal(now, r.stamps) {
		r.read(now)
	}
	return r.value
}

// reload reads the files, changed or not.
func (r *reloaded[T]) reload() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = nil
	r.read(stamps(r.files))
}

// read reads the files. What can't be read takes no other's place: the files may be half written. It is tried again, for
// who may read a file can change without a trace here.
func (r *reloaded[T]) read(now []stamp) {
	value, err := r.load()
	if err == nil {
		r.value, r.stamps, r.failed = value, now, nil
		r.log.Info("files read again", "files", r.files)
		return
	}
	if !slices.Equal(now, r.failed) {
		r.failed = now
		r.log.Error("files have changed and can't be read: what they held before stays in use", "files", r.files, "error", err)
	}
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
