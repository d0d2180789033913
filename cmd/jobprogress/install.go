package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"jobprogress/internal/job"
	"jobprogress/internal/store"
)

type installCommand struct {
	database
	Table       string `env:"JOBPROGRESS_TABLE" placeholder:"TABLE" help:"The job table, schema-qualified or found by search_path. Default: the one attached, at first that of the preset, or job."`
	ServiceRole string `env:"JOBPROGRESS_SERVICE_ROLE" placeholder:"ROLE" help:"Role that serve connects as: may read the published state of jobs."`
	WorkerRole  string `env:"JOBPROGRESS_WORKER_ROLE" placeholder:"ROLE" help:"Role that workers connect as: may call jobprogress.item."`
	Gate        string `env:"JOBPROGRESS_GATE" default:"" enum:",on,off" help:"on or off; off has every change notified, also of unwatched jobs: for listeners of your own. Commits that notify wait for one another, so this costs writers most of their speed where many write at once; cmd/bench-db/README.md has figures. Default: as it was, at first on."`

	Preset string `placeholder:"NAME" help:"Mapping of a job queue: river, oban, good_job, graphile-worker or pg-boss; job is the stand-in's. Flags beside it win; what was chosen before is taken back."`
	mapping
	Move    bool `help:"Detach the table that is attached, and attach another one."`
	Print   bool `help:"Print the SQL instead of running it."`
	Explain bool `help:"Show what would be attached, and some jobs as viewers would see them. Nothing is changed."`
}

// mapping says where a table has what viewers see. All but the first and the last two are SQL expressions over the row job.
type mapping struct {
	ID          string `name:"id" placeholder:"COLUMN" help:"Column of the id: uuid, bigint, integer or text. At first id."`
	Owner       string `placeholder:"SQL" help:"Who may watch, compared as text with the account. SQL over the row job, as are all that follow; null is nothing. At first job.account_id."`
	Status      string `placeholder:"SQL" help:"pending, running, completed or failed, or else see --statuses. At first job.status."`
	Progress    string `placeholder:"SQL" help:"JSON like {\"total\":100,\"done\":50,\"succeeded\":48,\"failed\":2}. At first job.progress."`
	Error       string `placeholder:"SQL" help:"Why a job failed. At first job.error."`
	Type        string `placeholder:"SQL" help:"What kind of job. At first job.type."`
	Run         string `placeholder:"SQL" help:"Distinguishes the runs of a job. Default: when it started."`
	CreatedAt   string `placeholder:"SQL" help:"At first job.created_at."`
	StartedAt   string `placeholder:"SQL" help:"At first job.started_at."`
	CompletedAt string `placeholder:"SQL" help:"At first job.completed_at."`
	UpdatedAt   string `placeholder:"SQL" help:"At first job.updated_at."`
	Statuses    string `placeholder:"LIST" help:"What statuses of the table are called here: available=pending,discarded=failed."`
	Deleted     string `default:"" enum:",gone,completed" help:"What it means that a row is deleted: gone, or completed where a queue deletes what has succeeded. At first gone."`
}

func (m mapping) settings() map[string]string {
	return map[string]string{
		"id": m.ID, "owner": m.Owner, "status": m.Status, "progress": m.Progress, "error": m.Error, "type": m.Type, "run": m.Run,
		"created_at": m.CreatedAt, "started_at": m.StartedAt, "completed_at": m.CompletedAt, "updated_at": m.UpdatedAt,
		"statuses": m.Statuses, "deleted": m.Deleted,
	}
}

func (c *installCommand) run(ctx context.Context, stdout, stderr io.Writer) error {
	installation := store.Installation{
		Table: c.Table, Preset: c.Preset, Mapping: c.settings(), Move: c.Move,
		ServiceRole: c.ServiceRole, WorkerRole: c.WorkerRole, Gate: c.Gate,
		Warn: func(warning string) { fmt.Fprintln(stderr, printable(warning)) },
	}
	switch {
	case c.Print:
		_, err := io.WriteString(stdout, installation.SQL())
		return err
	case c.Explain:
		explanation, err := store.Explain(ctx, c.DatabaseURL, installation)
		if err != nil {
			return err
		}
		return explain(stdout, explanation)
	}
	if err := store.Install(ctx, c.DatabaseURL, installation); err != nil {
		return err
	}
	attached, err := store.Attached(ctx, c.DatabaseURL)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "jobprogress is attached to table %s\n", attached.Table)
	return nil
}

// explain shows a job of each status, up to three, and how many there are of each.
func explain(w io.Writer, e store.Explanation) error {
	fmt.Fprintf(w, "Table %s, id %s of type %s. Nothing has been changed.\n", e.Attachment.Table, e.Attachment.ID, e.Attachment.IDType)
	if len(e.Jobs) == 0 {
		fmt.Fprintln(w, "It has no rows yet.")
		return nil
	}
	statuses := make(map[job.Status]int)
	for _, j := range e.Jobs {
		statuses[j.State.Status]++
	}
	names := slices.SortedFunc(maps.Keys(statuses), func(a, b job.Status) int {
		return cmp.Or(cmp.Compare(statuses[b], statuses[a]), cmp.Compare(a, b))
	})
	var counts []string
	for _, name := range names {
		counts = append(counts, fmt.Sprintf("%d %s", statuses[name], printable(string(name))))
	}
	fmt.Fprintf(w, "Statuses of %d rows: %s. Only completed and failed end a stream.\n", len(e.Jobs), strings.Join(counts, ", "))
	shown := 0
	show := func(j job.Snapshot) error {
		body, err := j.MarshalJSON()
		if err != nil {
			return err
		}
		shown++
		owner := j.State.Account
		if owner == "" {
			owner = "nobody"
		}
		_, err = fmt.Fprintf(w, "\nJob %s, which %s may watch:\n  %s\n", printable(string(j.ID)), printable(owner), printable(string(body)))
		return err
	}
	seen := make(map[job.Status]bool)
	for _, again := range []bool{false, true} { // one of each status first
		for _, j := range e.Jobs {
			if shown == 3 || seen[j.State.Status] != again {
				continue
			}
			if !again {
				seen[j.State.Status] = true
			}
			if err := show(j); err != nil {
				return err
			}
		}
	}
	return nil
}
