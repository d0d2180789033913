package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"jobprogress/internal/store"
)

type checkCommand struct {
	database
	ListenDatabaseURL string `env:"LISTEN_DATABASE_URL" secret:"" placeholder:"URL" help:"Where serve listens. Default: DATABASE_URL."`
	ServiceRole       string `env:"JOBPROGRESS_SERVICE_ROLE" placeholder:"ROLE" help:"Role whose rights are looked at: the one that serve connects as."`
	WorkerRole        string `env:"JOBPROGRESS_WORKER_ROLE" placeholder:"ROLE" help:"Role whose rights are looked at: the one that workers connect as."`

	URL   string        `name:"url" placeholder:"URL" help:"Look at the way to a stream instead, through whatever is in between: https://app.example.com/api/jobs/ID/progress."`
	Token string        `env:"JOBPROGRESS_TOKEN" secret:"" help:"Token of the job's account, for --url."`
	Wait  time.Duration `default:"40s" help:"How long to wait for a ping, for --url."`
	JSON  bool          `name:"json" help:"Print the findings as JSON."`
}

func (c *checkCommand) validate() []error {
	var invalid []error
	if c.URL != "" {
		if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			invalid = append(invalid, fmt.Errorf("--url %q is not like https://app.example.com/api/jobs/ID/progress", c.URL))
		}
		return invalid
	}
	return append(c.database.validate(), validateURL(c.ListenDatabaseURL, "LISTEN_DATABASE_URL (--listen-database-url)")...)
}

// checkTimeout bounds the looks at a database.
const checkTimeout = time.Minute

// report is the outcome, as --json prints it.
type report struct {
	Measured map[string]string `json:"measured,omitempty"` // of the way to a stream
	Findings []store.Finding   `json:"findings"`
	summary  string            // when there are none
}

func (c *checkCommand) run(ctx context.Context, stdout, _ io.Writer) error {
	look := c.lookAtDatabase
	if c.URL != "" {
		look = c.lookAtStream
	}
	r, err := look(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		out := json.NewEncoder(stdout)
		out.SetEscapeHTML(false)
		if r.Findings == nil {
			r.Findings = []store.Finding{}
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	} else {
		r.print(stdout)
	}
	for _, f := range r.Findings {
		if f.Fault {
			return errFault
		}
	}
	return nil
}

// errFault is that a fault was found, and said.
var errFault = errors.New("faults were found")

func (r report) print(w io.Writer) {
	for _, name := range measurements {
		if value, ok := r.Measured[name]; ok {
			fmt.Fprintf(w, "%s: %s\n", name, printable(value))
		}
	}
	for _, f := range r.Findings {
		kind := "note "
		if f.Fault {
			kind = "FAULT"
		}
		fmt.Fprintf(w, "%s %s: %s %s\n", kind, f.Code, printable(f.What), printable(f.Advice))
	}
	if len(r.Findings) == 0 {
		fmt.Fprintln(w, r.summary)
	}
}

func (c *checkCommand) lookAtDatabase(ctx context.Context) (report, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := store.Connect(ctx, c.DatabaseURL, "jobprogress check")
	if err != nil {
		return report{Findings: []store.Finding{store.Unreachable(err)}}, nil
	}
	defer conn.Close(context.WithoutCancel(ctx))
	attachment, findings, err := store.Check(ctx, conn, store.Roles{Service: c.ServiceRole, Worker: c.WorkerRole})
	if err != nil {
		return report{}, err
	}
	if attachment.Version == store.Version {
		rows, err := store.CheckRows(ctx, conn, attachment)
		if err != nil {
			return report{}, err
		}
		findings = append(findings, rows...)
	}
	listenURL := c.ListenDatabaseURL
	if listenURL == "" {
		listenURL = c.DatabaseURL
	}
	return report{
		Findings: append(findings, store.CheckListening(ctx, listenURL)...),
		summary:  fmt.Sprintf("ok: attached to table %s, id %s of type %s; version %d. Nothing is wrong.", attachment.Table, attachment.ID, attachment.IDType, attachment.Version),
	}, nil
}
