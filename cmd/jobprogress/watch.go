package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/tmaxmax/go-sse"
	"golang.org/x/term"

	"jobprogress/internal/job"
)

type watchCommand struct {
	ID    string `arg:"" optional:"" help:"The job's id. Without one, all jobs of the account."`
	URL   string `name:"url" env:"JOBPROGRESS_URL" default:"http://127.0.0.1:8080" help:"Where jobprogress serves."`
	Token string `env:"JOBPROGRESS_TOKEN" secret:"" help:"Token of the job's account, as jobprogress token prints it."`
}

func (c *watchCommand) validate() []error {
	var invalid []error
	if _, err := job.IDText.Parse(c.ID); c.ID != "" && err != nil {
		invalid = append(invalid, err)
	}
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		invalid = append(invalid, invalidSetting("url", "JOBPROGRESS_URL", "%q is not like https://app.example.com", c.URL))
	}
	return invalid
}

// event is any of a stream's events.
type event struct {
	Type string `json:"type"`
	job.Progress
	Status string `json:"status"`
	ItemID string `json:"itemId"`
	Kind   string `json:"itemKind"`
	Label  string `json:"label"`

	// Of a stream of many jobs.
	JobID string `json:"jobId"`
	Job   struct {
		Status   string
		Progress job.Progress
		Error    string
	} `json:"job"`
}

// watchPause is how long somebody at a terminal waits for the next try, at most.
const watchPause = 5 * time.Second

// view shows events to a person.
type view interface {
	show(event)
	close()
}

func (c *watchCommand) run(ctx context.Context, stdout, stderr io.Writer) error {
	file, terminal := stdout.(*os.File)
	terminal = terminal && term.IsTerminal(int(file.Fd()))
	path := "/api/jobs/progress"
	var v view
	switch {
	case c.ID == "":
		v = newJobs(stdout, terminal)
	case terminal:
		v = newOneBar(file, c.ID)
	default:
		v = newPlain(stdout)
	}
	if c.ID != "" {
		path = "/api/jobs/" + url.PathEscape(c.ID) + "/progress"
	}
	defer v.close()

	ctx, done := context.WithCancel(ctx)
	defer done()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.URL, "/")+path, nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	client := sse.Client{ResponseValidator: validate, Backoff: sse.Backoff{MaxInterval: watchPause}, OnRetry: func(err error, wait time.Duration) {
		if ctx.Err() == nil { // else the job has ended, and we with it
			fmt.Fprintf(stderr, "%s: %v; next try in %s\n", c.URL, err, wait.Round(time.Millisecond))
		}
	}}
	connection := client.NewConnection(request)
	var ended error
	var message string
	connection.SubscribeMessages(func(received sse.Event) {
		var e event
		if json.Unmarshal([]byte(received.Data), &e) != nil {
			return // of a kind that this version does not know
		}
		v.show(e)
		switch {
		case c.ID == "": // the list has no end
		case e.Type == "error":
			message = e.Message
		case e.Type == "status" && job.Status(e.Status).Terminal():
			if e.Status == string(job.Failed) {
				ended = fmt.Errorf("job failed: %s", message)
			}
			done()
		}
	})
	err = connection.Connect()
	if ctx.Err() != nil || errors.Is(err, errSeen) {
		return ended
	}
	if refused, ok := errors.AsType[refusal](err); ok {
		return refused
	}
	return fmt.Errorf("watch: %w", err)
}

// refusal is an answer that no retry changes.
type refusal struct{ reason string }

func (r refusal) Error() string { return r.reason }

// errSeen is that the job had ended when we came back.
var errSeen = errors.New("job has ended")

// validate distinguishes a stream from a refusal, and those worth another try from the rest.
func validate(response *http.Response) error {
	switch {
	case response.StatusCode == http.StatusOK:
		return sse.DefaultValidator(response)
	case response.StatusCode == http.StatusNoContent:
		return errSeen
	case response.StatusCode >= http.StatusInternalServerError:
		return temporary{response.Status}
	}
	var problem struct{ Detail string }
	json.NewDecoder(response.Body).Decode(&problem)
	reason := response.Status + ": " + problem.Detail
	switch {
	case response.StatusCode != http.StatusUnauthorized:
	case response.Request.Header.Get("Authorization") == "":
		reason = response.Status + ": name the token of the job's account with --token or JOBPROGRESS_TOKEN"
	default:
		reason = response.Status + ": the token is not valid (any more)"
	}
	return refusal{printable(reason)}
}

// temporary has the client try again.
type temporary struct{ status string }

func (t temporary) Error() string   { return t.status }
func (t temporary) Temporary() bool { return true }
