package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"jobprogress/internal/job"
)

// kind is a type of job and what its items are.
type kind struct{ jobType, itemKind string }

var kinds = []kind{
	{"sync_liked_songs", "song"},
	{"sync_playlists", "playlist"},
	{"song_analysis", "song"},
	{"playlist_analysis", "playlist"},
	{"matching", "match"},
}

// worker runs one simulated job the way an application's worker would: a transaction for each step, the item and the
// row together.
type worker struct {
	pool     *pgxpool.Pool
	table    string // quoted
	settings *simulateCommand
	kind     kind
	id       string

	progress job.Progress
}

// queuedAhead is how many items are queued before they are worked on.
const queuedAhead = 3

// stopTimeout bounds how long an interrupted worker takes to say so.
const stopTimeout = 3 * time.Second

// errSimulated is why a simulated job fails.
var errSimulated = errors.New("the music service answered 503 three times in a row")

func (w *worker) work(ctx context.Context) (job.Status, error) {
	_, err := w.pool.Exec(ctx, `insert into `+w.table+` (id, account_id, type, status, progress, created_at, updated_at)
		values ($1, $2, $3, 'pending', '{}', now(), now())`, w.id, w.settings.Account, w.kind.jobType)
	if err != nil {
		return "", ignoreStop(ctx, fmt.Errorf("insert job: %w", err))
	}
	err = w.items(ctx)
	// An interrupted worker still says how its job ended: nobody else will.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	switch {
	case err == nil:
		return job.Completed, w.end(ending, job.Completed, "")
	case errors.Is(err, errSimulated):
		return job.Failed, w.end(ending, job.Failed, err.Error())
	case ctx.Err() != nil:
		return job.Failed, w.end(ending, job.Failed, "the worker was stopped")
	}
	return "", err
}

func ignoreStop(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (w *worker) items(ctx context.Context) error {
	step := time.Duration(float64(time.Second) / w.settings.Rate)
	if !pause(ctx, step) {
		return ctx.Err()
	}
	w.progress.Total = int64(w.settings.Items/2 + rand.IntN(w.settings.Items) + 1)
	breaks := int64(-1)
	if rand.Float64() < w.settings.FailureRate {
		breaks = rand.Int64N(w.progress.Total)
	}
	err := w.step(ctx, `status = 'running', started_at = now()`)
	for i := int64(0); i < w.progress.Total && err == nil; i++ {
		if i == breaks {
			return errSimulated
		}
		err = w.item(ctx, i, step)
	}
	return err
}

// item works on one item: in progress, a while, then its end and the job's progress in one transaction.
func (w *worker) item(ctx context.Context, i int64, step time.Duration) error {
	first := i
	if i > 0 {
		first = i + queuedAhead
	}
	err := w.transaction(ctx, func(tx pgx.Tx) error {
		for queued := first; queued <= i+queuedAhead && queued < w.progress.Total; queued++ {
			if err := w.sayItem(ctx, tx, queued, "queued"); err != nil {
				return err
			}
		}
		return w.sayItem(ctx, tx, i, "in_progress")
	})
	if err != nil {
		return err
	}
	if !pause(ctx, step/2+rand.N(step)) {
		return ctx.Err()
	}
	outcome := "succeeded"
	if rand.Float64() < w.settings.FailureRate {
		outcome = "failed"
		w.progress.Failed++
	} else {
		w.progress.Succeeded++
	}
	w.progress.Done++
	return w.transaction(ctx, func(tx pgx.Tx) error {
		if err := w.sayItem(ctx, tx, i, outcome); err != nil {
			return err
		}
		return w.update(ctx, tx, `status = status`)
	})
}

func (w *worker) end(ctx context.Context, status job.Status, message string) error {
	return w.transaction(ctx, func(tx pgx.Tx) error {
		return w.update(ctx, tx, `status = $3, error = nullif($4, ''), completed_at = now()`, status, message)
	})
}

func (w *worker) step(ctx context.Context, set string) error {
	return w.transaction(ctx, func(tx pgx.Tx) error { return w.update(ctx, tx, set) })
}

func (w *worker) transaction(ctx context.Context, work func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, w.pool, work)
}

func (w *worker) update(ctx context.Context, tx pgx.Tx, set string, args ...any) error {
	_, err := tx.Exec(ctx, `update `+w.table+` set progress = $2, updated_at = now(), `+set+` where id = $1`,
		append([]any{w.id, w.progress}, args...)...)
	if err != nil {
		return fmt.Errorf("update job: %w", err)
	}
	return nil
}

func (w *worker) sayItem(ctx context.Context, tx pgx.Tx, i int64, status string) error {
	_, err := tx.Exec(ctx, `select jobprogress.item($1, $2, $3, $4, label => $5, index => $6, count => $7)`,
		w.id, fmt.Sprintf("%s-%d", w.kind.itemKind, i+1), w.kind.itemKind, status, label(w.kind, i), i+1, w.progress.Total)
	if err != nil {
		return fmt.Errorf("say the status of an item: %w", err)
	}
	return nil
}

var (
	artists   = []string{"Nina Simone", "Björk", "The Midnight", "Sigur Rós", "Fela Kuti", "坂本龍一", "Rosalía", "Tame Impala"}
	titles    = []string{"Feeling Good", "Jóga", "Sunset", "Hoppípolla", "Zombie", "Aqua", "Malamente", "Let It Happen", "Days", "Harvest"}
	playlists = []string{"Sunday morning", "Deep focus", "Running 160", "Kitchen", "Late drive", "Rain", "Party <3", "Sleep & dream"}
)

// label names an item as a person would.
func label(k kind, i int64) string {
	artist, title := artists[i%int64(len(artists))], titles[i*7%int64(len(titles))]
	playlist := playlists[i*5%int64(len(playlists))]
	switch k.itemKind {
	case "playlist":
		return playlist
	case "match":
		return title + " → " + playlist
	}
	return artist + " – " + title
}

// pause waits for d or the end of ctx, and reports whether it was d.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
