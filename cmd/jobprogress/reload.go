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
	log     *slog.Logger
	signals chan os.Signal // SIGHUPs, from the start: an early one must not end us
	all     []interface{ look(force bool) }
}

func newFiles(log *slog.Logger) *files {
	f := &files{log: log, signals: make(chan os.Signal, 1)}
	signal.Notify(f.signals, syscall.SIGHUP)
	return f
}

// run reads files that have changed, and at a SIGHUP all, until ctx ends. It returns nil.
func (f *files) run(ctx context.Context) error {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		all := false
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-f.signals:
			f.log.Info("SIGHUP: reading certificates, keys and secrets again")
			all = true
		}
		for _, one := range f.all {
			one.look(all)
		}
	}
}

// close has SIGHUP end the process again.
func (f *files) close() { signal.Stop(f.signals) }

// reload returns a function for what the files of these names hold now. value is what was read of them already.
func reload[T any](f *files, value T, load func() (T, error), names ...string) func() T {
	r := &reloaded[T]{log: f.log, load: load, names: names, value: value, stamps: stamps(names)}
	f.all = append(f.all, r)
	return r.get
}

// reloaded is what files hold.
type reloaded[T any] struct {
	log   *slog.Logger
	load  func() (T, error)
	names []string

	mu    sync.Mutex
	value T

	// Of the goroutine that looks:
	stamps []stamp // of what value was read from
	failed []stamp // of what could not be read, and was logged
}

// stamp identifies a version of a file; that of none is zero.
type stamp struct {
	modified time.Time
	size     int64
	mode     os.FileMode
	inode    uint64
}

// pipe is the stamp of what can be read once only, and may keep a reader waiting.
var pipe = stamp{size: -1}

// lookInterval is how often the files are looked at.
const lookInterval = time.Second

// get returns what the files hold.
func (r *reloaded[T]) get() T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.value
}

// look reads the files if they have changed, or all is forced. On an error the old value stays in use: the files may be half
// written. They are tried again each time.
func (r *reloaded[T]) look(force bool) {
	now := stamps(r.names)
	switch {
	case slices.Contains(now, pipe):
		return
	case force:
		r.failed = nil
	case slices.Equal(now, r.stamps):
		r.failed = nil
		return
	}
	value, err := r.load()
	if err != nil {
		if !slices.Equal(now, r.failed) {
			r.failed = now
			r.log.Error("files can't be read: what they held before stays in use", "files", r.names, "error", err)
		}
		return
	}
	r.mu.Lock()
	r.value = value
	r.mu.Unlock()
	r.stamps, r.failed = now, nil
	r.log.Info("files read again", "files", r.names)
}

func stamps(names []string) []stamp {
	all := make([]stamp, len(names))
	for i, name := range names {
		info, err := os.Stat(name)
		switch {
		case err != nil:
		case info.Mode()&(os.ModeNamedPipe|os.ModeSocket|os.ModeDevice) != 0:
			all[i] = pipe
		default:
			all[i] = stamp{modified: info.ModTime(), size: info.Size(), mode: info.Mode()}
			if system, ok := info.Sys().(*syscall.Stat_t); ok {
				all[i].inode = system.Ino
			}
		}
	}
	return all
}
