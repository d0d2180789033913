package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"jobprogress/internal/auth"
	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/sse"
	"jobprogress/internal/stream"
)

// mostJobs is how many jobs one stream may name.
const mostJobs = 100

// getJobs answers with many jobs as JSON: those that the request names, or the account's list.
func (a *API) getJobs(w http.ResponseWriter, r *http.Request) error {
	viewer, ids, _, err := a.manyJobsOf(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	var rows []job.Snapshot
	if ids != nil {
		rows, err = a.config.Jobs.Snapshot(ctx, ids)
		slices.SortFunc(rows, func(a, b job.Snapshot) int { return slices.Index(ids, a.ID) - slices.Index(ids, b.ID) })
	} else {
		rows, err = a.config.Jobs.List(ctx, viewer.Account)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", hub.ErrUnavailable, err)
	}
	body := []byte{'['}
	for _, row := range rows {
		if !row.Found || !viewer.Owns(row.State.Account) {
			continue // since a moment ago
		}
		state, err := row.MarshalJSON()
		if err != nil {
			return err
		}
		if len(body) > 1 {
			body = append(body, ',')
		}
		body = append(body, state...)
	}
	answerJSON(w, r, append(body, ']'))
	return nil
}

// getManyProgress answers with one stream for many jobs: those that the request names, or the account's list. A client that asks for
// JSON gets them once: a page that has no stream needs no other route through the proxies.
func (a *API) getManyProgress(w http.ResponseWriter, r *http.Request) error {
	w.Header().Add("Vary", "Accept")
	if accepts(r, "application/json") && !accepts(r, sse.ContentType) {
		return a.getJobs(w, r)
	}
	viewer, ids, table, err := a.manyJobsOf(r)
	if err != nil {
		return err
	}
	return a.serveStream(w, r, viewer, func() (stream.Source, error) { return a.manyJobs(w, r, viewer, ids, table) })
}

// manyJobs opens a stream of many jobs, unless its viewer has seen all of them end.
func (a *API) manyJobs(w http.ResponseWriter, r *http.Request, viewer auth.Viewer, ids []job.ID, table job.Table) (stream.Source, error) {
	var group *hub.Group
	if ids != nil {
		group = a.config.Hub.Group(ids)
	} else {
		group = a.config.Hub.AccountGroup(viewer.Account)
	}
	waiting, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	whole, err := group.Wait(waiting)
	switch {
	case err != nil && r.Context().Err() == nil:
		err = fmt.Errorf("%w: %w", hub.ErrUnavailable, err)
	case err != nil:
	case !viewer.Expires.IsZero() && !time.Now().Before(viewer.Expires):
		err = errExpired
	case whole && ids != nil && allSeen(group, viewer, lastEventID(r), table.Deleted):
		a.noContent(w)
	default:
		return stream.ManyJobs(group, table.Deleted), nil
	}
	group.Close()
	return nil, err
}

// allSeen reports whether the event of this id was the last of a stream in which all jobs had ended as they have now. Where
// rows of jobs that have succeeded are deleted, no more is known of those.
func allSeen(group *hub.Group, viewer auth.Viewer, lastEventID string, deleted job.Deleted) bool {
	if !hub.IsFinal(lastEventID) {
		return false
	}
	var rows []job.Snapshot
	missing := false
	for _, subscriber := range group.Members {
		if subscriber == nil {
			return false
		}
		now := subscriber.Picture()
		switch {
		case !now.Found || !viewer.Owns(now.Row.State.Account):
			missing = true
		case now.End != hub.Final:
			return false
		}
		rows = append(rows, now.Row)
	}
	if missing {
		return deleted == job.DeletedCompleted
	}
	return lastEventID == hub.FinalIDOf(rows)
}

// manyJobsOf are the viewer and the jobs that a request names, each once, in order; nil for the account's list.
func (a *API) manyJobsOf(r *http.Request) (viewer auth.Viewer, ids []job.ID, table job.Table, err error) {
	if viewer, err = a.config.Auth.Authenticate(r); err != nil {
		return viewer, nil, table, err
	}
	if ids, table, err = a.jobIDs(r); err == nil && ids == nil && viewer.Anyone {
		err = errNoAccount
	}
	return viewer, ids, table, err
}

// jobIDs are the jobs that a request names, each once, in order; nil if it names none.
func (a *API) jobIDs(r *http.Request) (ids []job.ID, table job.Table, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	if table, err = a.config.Hub.Table(ctx); err != nil {
		return nil, table, err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, table, invalidJobID(table.IDType)
	}
	named := query["id"]
	if len(named) > mostJobs {
		return nil, table, errTooManyIDs
	}
	invalid := invalidJobID(table.IDType)
	for _, text := range named {
		id, err := table.IDType.Parse(text)
		if err != nil {
			invalid.IDs = append(invalid.IDs, text)
			continue
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if invalid.IDs != nil {
		return nil, table, invalid
	}
	return ids, table, nil
}
