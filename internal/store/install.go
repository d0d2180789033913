package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"jobprogress/sql"
)

// Installation says what is to be attached and who may use it.
type Installation struct {
	Table       string // the job table, schema-qualified or found by search_path; "" is the one attached, or else job
	ServiceRole string // may read what is published; "" grants nobody
	WorkerRole  string // may call jobprogress.item; "" grants nobody
	Gate        string // off: every change is notified, watched or not; "" is what it was, or else on
}

// SQL is the script that attaches: the settings, then sql/install.sql.
func (i Installation) SQL() string {
	var b strings.Builder
	for _, setting := range []struct{ name, value string }{
		{"job_table", i.Table}, {"service_role", i.ServiceRole}, {"worker_role", i.WorkerRole}, {"gate", i.Gate},
	} {
		fmt.Fprintf(&b, "set jobprogress.%s = %s;\n", setting.name, quote(setting.value))
	}
	return b.String() + "\n" + sql.Install
}

// quote makes a literal that means the same whatever standard_conforming_strings is.
func quote(s string) string {
	s = strings.ReplaceAll(s, `'`, `''`)
	if !strings.Contains(s, `\`) {
		return `'` + s + `'`
	}
	return `E'` + strings.ReplaceAll(s, `\`, `\\`) + `'`
}

// Install attaches jobprogress to the database of url. It can be done again.
func Install(ctx context.Context, url string, i Installation) error {
	_, err := script(ctx, url, "install", i.SQL())
	return err
}

// Attached is the name of the job table.
func Attached(ctx context.Context, url string) (table string, err error) {
	results, err := script(ctx, url, "ask what is attached", `select jobprogress.attachment() ->> 'table'`)
	if err != nil {
		return "", err
	}
	return string(results[0].Rows[0][0]), nil
}

// Uninstall takes everything away that Install brought.
func Uninstall(ctx context.Context, url string) error {
	_, err := script(ctx, url, "uninstall", sql.Uninstall)
	return err
}

// script runs SQL, of any number of statements.
func script(ctx context.Context, url, what, text string) ([]*pgconn.Result, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("%s: parse database URL: %w", what, err)
	}
	configure(config)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, text).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, explain(err))
	}
	return results, nil
}

// explain adds to an error of the database what it suggests to do, or what we do.
func explain(err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	hint := pg.Hint
	switch pg.Code {
	case "3F000", "42883": // no such schema, no such function
		if strings.Contains(pg.Message, "jobprogress") {
			hint = "Run jobprogress install on this database."
		}
	case "42501": // insufficient privilege
		switch {
		case strings.Contains(pg.Message, "must be owner of schema"):
			hint = "Run it as the role that installed jobprogress."
		case strings.Contains(pg.Message, "must be owner"):
			hint = "Run it as the owner of the job table."
		case strings.Contains(pg.Message, "for database"):
			hint = "The role needs to create a schema: grant create on database … to it."
		case strings.Contains(pg.Message, "jobprogress"), strings.Contains(pg.Message, "snapshot"), strings.Contains(pg.Message, "attachment"):
			hint = "Run jobprogress install with --service-role, which grants the role what it needs."
		}
	case "55P03": // lock timeout
		hint = "A long transaction holds the job table. Run it again when that has ended."
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w. %s", err, hint)
}
