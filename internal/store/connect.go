package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connectTimeout bounds an attempt to connect, also to a host that does not answer at all.
const connectTimeout = 5 * time.Second

// Connect opens a session of its own to the primary of the database of url. name distinguishes it from others in
// pg_stat_activity. The caller closes it.
func Connect(ctx context.Context, url, name string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse database URL: %w", err)
	}
	config.RuntimeParams["application_name"] = name
	configure(config)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}

func configure(config *pgx.ConnConfig) {
	// Prepared statements don't survive a transaction pooler; sending the text each time costs a parse.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	if config.ConnectTimeout == 0 || config.ConnectTimeout > connectTimeout {
		config.ConnectTimeout = connectTimeout
	}
	// Not a standby, which knows neither NOTIFY nor the newest state, and not what was a primary until a moment ago.
	config.ValidateConnect = validatePrimary
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "jobprogress"
	}
	// What reading depends on, whatever the role's own settings are. Poolers take these at the start, and no others.
	config.RuntimeParams["client_encoding"] = "UTF8"
	config.RuntimeParams["datestyle"] = "ISO"
	config.RuntimeParams["timezone"] = "UTC"
}

// notPrimary is why a server can't notify.
type notPrimary string

func (e notPrimary) Error() string { return string(e) }

// validatePrimary refuses a server that can't notify.
func validatePrimary(ctx context.Context, conn *pgconn.PgConn) error {
	result, err := conn.Exec(ctx, `select pg_is_in_recovery(), current_setting('transaction_read_only')`).ReadAll()
	if err != nil {
		return err
	}
	row := result[0].Rows[0]
	switch {
	case string(row[0]) == "t":
		return notPrimary("the server is a standby, which knows no notifications: name the primary in DATABASE_URL and LISTEN_DATABASE_URL")
	case string(row[1]) == "on":
		return notPrimary("the session is read-only, and can't notify: name a primary that takes writes, or set default_transaction_read_only = off for this role")
	}
	return nil
}

// CheckAlive returns the error with which the server has ended an idle session, if it has. It waits for up to a
// millisecond, and sends nothing.
func CheckAlive(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if _, err := conn.PgConn().ReceiveMessage(ctx); err != nil && !pgconn.Timeout(err) {
		return fmt.Errorf("the session has ended: %w", err)
	}
	return nil
}

// StatementTimeout bounds each statement of a session after Prepare; the session outlives it.
const StatementTimeout = 3 * time.Second

// prepareSQL makes the settings that this version of PostgreSQL has. Our generic plans are good for any number of jobs.
const prepareSQL = `
select set_config(name, value, false)
from (values
  ('default_transaction_isolation', 'read committed'),
  ('statement_timeout', '3000'),
  ('lock_timeout', '0'),
  ('idle_session_timeout', '0'),
  ('idle_in_transaction_session_timeout', '0'),
  ('transaction_timeout', '0'),
  ('jit', 'off'),
  ('plan_cache_mode', 'force_generic_plan'),
  ('tcp_keepalives_idle', '10'),
  ('tcp_keepalives_interval', '5'),
  ('tcp_keepalives_count', '3'),
  ('tcp_user_timeout', '20000')
) as wanted (name, value)
where exists (select from pg_settings where pg_settings.name = wanted.name)`

// Prepare sets what reading depends on, for as long as the session lasts. It must be a direct one: behind a transaction
// pooler the settings would be somebody else's.
func Prepare(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, prepareSQL); err != nil {
		return fmt.Errorf("prepare session: %w", err)
	}
	return nil
}
