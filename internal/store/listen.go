package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Connect opens the session that listens: a direct one to the primary of the database of url. It is not pooled; the
// caller closes it.
func Connect(ctx context.Context, url string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse database URL: %w", err)
	}
	config.RuntimeParams["application_name"] = "jobprogress listen" // to be told from the pools in pg_stat_activity
	for name, value := range listenSettings {
		if config.RuntimeParams[name] == "" {
			config.RuntimeParams[name] = value
		}
	}
	configure(config)
	conn, err := pgx.ConnectConfig(ctx, config)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "08P01" { // of PgBouncer, which takes no settings
		return nil, fmt.Errorf("%w: LISTEN_DATABASE_URL (or DATABASE_URL, without it) goes through a pooler; name the primary itself there", err)
	}
	return conn, err
}

// listenSettings are of the session that listens. As long as the server believes that it is there, the notifications
// that it has not heard stay in the server's queue, and a full queue fails the transactions that notify: so a peer that
// is gone without a word, or does not read, is given up after 20 to 25 s. Nor is it to be ended for being silent.
var listenSettings = map[string]string{
	"tcp_keepalives_idle":     "10",    // s
	"tcp_keepalives_interval": "5",     // s
	"tcp_keepalives_count":    "3",     // probes
	"tcp_user_timeout":        "20000", // ms
	"idle_session_timeout":    "0",
}
