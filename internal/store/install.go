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
	Table       string // the job table, schema-qualified or found by search_path
	ServiceRole string // may read snapshots; "" grants nobody
	WorkerRole  string // may call jobprogress.item; "" grants nobody
	Ungated     bool   // every change is notified, also what no server watches
}

// SQL is the script that attaches: the settings, then sql/install.sql.
func (i Installation) SQL() string {
	var b strings.Builder
	gate := "on"
	if i.Ungated {
		gate = "off"
	}
	for _, setting := range []struct{ name, value string }{
		{"job_table", i.Table}, {"service_role", i.ServiceRole}, {"worker_role", i.WorkerRole}, {"gate", gate},
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
	return script(ctx, url, "install", i.SQL())
}

// Uninstall takes everything away that Install brought.
func Uninstall(ctx context.Context, url string) error {
	return script(ctx, url, "uninstall", sql.Uninstall)
}

// script runs SQL of several statements, which brings its own transaction.
func script(ctx context.Context, url, what, text string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("%s: parse database URL: %w", what, err)
	}
	configure(config)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer conn.Close(ctx)
	if _, err := conn.PgConn().Exec(ctx, text).ReadAll(); err != nil {
		return fmt.Errorf("%s: %w", what, explain(err))
	}
	return nil
}

// explain adds to an error of the database what it suggests to do, or what we do.
func explain(err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	hint := pg.Hint
	switch pg.Code {
	case "3F000", "42883", "42703": // no such schema, no such function, a function of an earlier version
		if strings.Contains(pg.Message, "jobprogress") || strings.Contains(pg.Message, "seal_key") {
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
		case strings.Contains(pg.Message, "jobprogress"), strings.Contains(pg.Message, "snapshot"):
			hint = "Run jobprogress install with --service-role, or grant usage on schema jobprogress and execute on function jobprogress.snapshot(uuid[])."
		}
	case "55P03": // lock timeout
		hint = "A long transaction holds the job table. Run it again when that has ended."
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w. %s", err, hint)
}
