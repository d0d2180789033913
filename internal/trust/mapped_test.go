package trust

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"jobprogress/internal/store"
)

// mapJobs makes the job table one of somebody else's: with ids of type bigint, owners of type text, and other statuses.
func mapJobs(ctx context.Context, databaseURL string) error {
	if err := store.Uninstall(ctx, databaseURL); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.PgConn().Exec(ctx, `
		alter table job drop constraint job_account_id_fkey, drop constraint job_pkey;
		alter table job alter account_id type text, alter id type bigint using 0, add primary key (id);
		alter type job_status rename value 'running' to 'active';
		alter type job_status rename value 'completed' to 'done';
		alter type job_status rename value 'failed' to 'broken'`).ReadAll()
	if err != nil {
		return err
	}
	return store.Install(ctx, databaseURL, store.Installation{Mapping: map[string]string{"statuses": "active=running,done=completed,broken=failed"}})
}

// mapped rewrites SQL for the stand-in's table for one that mapJobs has made.
var mapped = strings.NewReplacer(
	`$3 = 'failed'`, `$3 = 'failed'`,
	`'running'`, `'active'`,
	`'completed'`, `'done'`,
	`'failed'`, `'broken'`,
	`status::text`, `('{"active": "running", "done": "completed", "broken": "failed"}'::jsonb ->> status::text)`,
	`$3::job_status`, `('{"completed": "done", "failed": "broken"}'::jsonb ->> $3)::job_status`,
	`$4::uuid`, `$4::text`,
)

// sql is SQL for the table of this world.
func (w *world) sql(text string) string {
	if w.Mapped {
		return mapped.Replace(text)
	}
	return text
}

// newID is the id of a job that was not there before.
func (w *world) newID() string {
	random := uuid.New()
	if n := w.Buckets; n > 0 {
		random[15] %= byte(n)
	}
	if !w.Mapped {
		return random.String()
	}
	return strconv.FormatInt(rand.Int64()&^0xff|int64(random[15]), 10)
}
