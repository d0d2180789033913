package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
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
	configure(config)
	return pgx.ConnectConfig(ctx, config)
}
