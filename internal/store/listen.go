package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Connect opens the session that listens: a direct one to the primary of the database of url. It is not pooled; the
// caller closes it.
func Connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse database URL: %w", err)
	}
	configure(config)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	// A standby can't LISTEN, and a session that is read-only now was a primary until a moment ago.
	var readOnly bool
	err = conn.QueryRow(ctx, `select pg_is_in_recovery() or current_setting('transaction_read_only')::bool`).Scan(&readOnly)
	if err == nil && readOnly {
		err = fmt.Errorf("%s is a standby or read-only: name the primary in LISTEN_DATABASE_URL", config.Host)
	}
	if err != nil {
		conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}
