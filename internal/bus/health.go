package bus

import (
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/time/rate"

	"jobprogress/internal/hub"
	"jobprogress/internal/store"
)

// health says to viewers and operators whether the bus is live. Each change is one line of the log, also from
// one failure to another; the same failure is logged once a minute. It belongs to the reader.
type health struct {
	log    *slog.Logger
	feed   hub.Feed
	isLive bool
	logged string // why not, as it was logged last
	again  rate.Sometimes
}

func newHealth(log *slog.Logger, feed hub.Feed) *health {
	return &health{log: log, feed: feed, again: rate.Sometimes{Interval: time.Minute}}
}

func (h *health) live() {
	if h.isLive {
		return
	}
	h.isLive, h.logged = true, ""
	h.feed.SetLive()
	h.log.Info("bus live", "channel", Channel)
}

func (h *health) degraded(err error) {
	was, text := h.isLive, err.Error()
	h.isLive = false
	h.feed.SetDegraded(public(err))
	switch {
	case was:
		h.log.Warn("bus degraded", "error", err)
	case text != h.logged:
		h.log.Warn("bus not live", "error", err)
	default:
		h.again.Do(func() { h.log.Warn("bus not live", "error", err) })
	}
	h.logged = text
}

// public is what everybody may know of an error: not the names of hosts and roles.
func public(err error) string {
	var connect *pgconn.ConnectError
	var answer *pgconn.PgError
	var version store.VersionError
	switch {
	case errors.As(err, &connect):
	case errors.As(err, &answer), errors.As(err, &version), errors.Is(err, errNoEcho):
		return err.Error()
	}
	return "the database can't be reached"
}
