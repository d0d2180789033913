package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"jobprogress/internal/job"
	"jobprogress/sql"
)

// Installation says what is to be attached, how, and who may use it. What is "" or missing stays as it was.
type Installation struct {
	Table       string            // the job table, schema-qualified or found by search_path; at first that of the preset, or job
	Preset      string            // a mapping by its name; takes back what was chosen before
	Mapping     map[string]string // id, deleted, statuses, and SQL expressions by what they are: owner, created_at ...
	Move        bool              // may detach another table
	ServiceRole string            // may read what is published
	WorkerRole  string            // may call jobprogress.item
	Gate        string            // off: every change is notified, watched or not; at first on

	Warn func(string) // is called with what works, and may surprise; may be nil
}

// SQL is the script that attaches.
func (i Installation) SQL() string { return i.settings() + "\n" + sql.Install }

// settings are those of the session that sql/install.sql looks at.
func (i Installation) settings() string {
	settings := map[string]string{
		"job_table": i.Table, "preset": i.Preset, "service_role": i.ServiceRole, "worker_role": i.WorkerRole, "gate": i.Gate,
	}
	if i.Move {
		settings["move"] = "on"
	}
	maps.Copy(settings, i.Mapping)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if settings[name] != "" {
			fmt.Fprintf(&b, "set jobprogress.%s = %s;\n", name, quote(settings[name]))
		}
	}
	return b.String()
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
	return session(ctx, url, "install", i.Warn, func(conn *pgx.Conn) error {
		return run(ctx, conn, "install", i.SQL())
	})
}

// Explanation is what would be attached.
type Explanation struct {
	Attachment Attachment
	Jobs       []job.Snapshot // some that there are now, as they would be read
}

// Explain is Install up to where the job table is locked, and takes it all back.
func Explain(ctx context.Context, url string, i Installation) (e Explanation, err error) {
	err = session(ctx, url, "explain", i.Warn, func(conn *pgx.Conn) error {
		if err := run(ctx, conn, "explain", i.settings()+"\n"+sql.Preview); err != nil {
			return err
		}
		defer conn.Exec(ctx, `rollback`)
		if e.Attachment, err = ReadAttachment(ctx, conn); err != nil {
			return err
		}
		e.Jobs, err = sample(ctx, conn)
		return err
	})
	return e, err
}

// Attached is what is attached to the database of url.
func Attached(ctx context.Context, url string) (a Attachment, err error) {
	err = session(ctx, url, "ask what is attached", nil, func(conn *pgx.Conn) error {
		a, err = ReadAttachment(ctx, conn)
		return err
	})
	return a, err
}

// Uninstall takes everything away that Install brought.
func Uninstall(ctx context.Context, url string) error {
	return session(ctx, url, "uninstall", nil, func(conn *pgx.Conn) error {
		return run(ctx, conn, "uninstall", sql.Uninstall)
	})
}

// session does something with a session of its own, whose warnings go to warn.
func session(ctx context.Context, url, what string, warn func(string), do func(*pgx.Conn) error) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("%s: parse database URL: %w", what, err)
	}
	configure(config)
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if warn != nil && n.SeverityUnlocalized == "WARNING" {
			warn(n.Message)
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer conn.Close(ctx)
	return do(conn)
}

// run runs SQL, of any number of statements.
func run(ctx context.Context, conn *pgx.Conn, what, text string) error {
	if _, err := conn.PgConn().Exec(ctx, text).ReadAll(); err != nil {
		return fmt.Errorf("%s: %w", what, explain(err))
	}
	return nil
}

// said is an error of our own SQL, as a sentence.
type said struct {
	sentence string
	error
}

func (s said) Error() string { return s.sentence }
func (s said) Unwrap() error { return s.error }

// explain adds to an error of the database what it suggests to do, or what we do.
func explain(err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	hint := pg.Hint
	switch pg.Code {
	case "P0001": // raised by our own SQL, for people to read
		if message, ok := strings.CutPrefix(pg.Message, "jobprogress: "); ok {
			return said{strings.TrimSuffix(message+". "+hint, ". "), err}
		}
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
			_, database, _ := strings.Cut(pg.Message, "for ")
			hint = "Run it as the owner of the job table, who needs to create a schema: grant create on " + database + " to it."
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
