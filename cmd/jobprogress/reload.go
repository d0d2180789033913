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
	all     []interface{ reload() }
}

func newFiles(log *slog.Logger) *files {
	f := &files{log: log, signals: make(chan os.Signal, 1)}
	signal.Notify(f.signals, syscall.SIGHUP)
	return f
}

// run reads the files again at each SIGHUP, until ctx ends. It returns nil.
func (f *files) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.signals:
			f.log.Info("SIGHUP: reading certificates, keys and secrets again")
			for _, one := range f.all {
				one.reload()
			}
		}
	}
}

// close has SIGHUP end the process again.
func (f *files) close() { signal.Stop(f.signals) }

// reload returns a function for what the files of these names hold now. value is what was read of them already.
func reload[T any](f *files, value T, load func() (T, error), names ...string) func() T {
	r := &reloaded[T]{log: f.log, load: load, names: names, value: value, stamps: stamps(names), looked: time.Now()}
	f.all = append(f.all, r)
	return r.get
}

// reloaded is what files hold.
type reloaded[T any] struct {
	log   *slog.Logger
	load  func() (T, error)
	names []string

	mu     sync.Mutex
	value  T
	stamps []stamp // of what value was read from
	failed []stamp // of what could not be read, and was logged
	looked time.Time
}

// stamp identifies a version of a file; that of none is zero.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
}

// pipe is the stamp of what can be read once only, and may keep a reader waiting.
var pipe = stamp{size: -1}

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
	if now := stamps(r.names); !slices.Equal(now, r.stamps) {
		r.read(now)
	} else {
		r.failed = nil
	}
	return r.value
}

// reload reads the files, changed or not.
func (r *reloaded[T]) reload() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = nil
	r.read(stamps(r.names))
}

// read reads the files. On an error the old value stays in use: the files may be half written. It is tried again, for who
// may read a file can change without a trace here.
func (r *reloaded[T]) read(now []stamp) {
	if slices.Contains(now, pipe) {
		return
	}
	value, err := r.load()
	if err == nil {
		r.value, r.stamps, r.failed = value, now, nil
		r.log.Info("files read again", "files", r.names)
		return
	}
	if !slices.Equal(now, r.failed) {
		r.failed = now
		r.log.Error("files have changed and can't be read: what they held before stays in use", "files", r.names, "error", err)
	}
}

func stamps(names []string) []stamp {
	all := make([]stamp, len(names))
	for i, name := range names {
		info, err := os.Stat(name)
		switch {
		case err != nil:
		case !info.Mode().IsRegular():
			all[i] = pipe
		default:
			all[i] = stamp{modified: info.ModTime(), size: info.Size()}
			if system, ok := info.Sys().(*syscall.Stat_t); ok {
				all[i].inode = system.Ino
			}
		}
	}
	return all
}
