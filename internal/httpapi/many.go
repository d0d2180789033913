package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"jobprogress/internal/auth"
	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/sse"
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
		rows, err = a.Jobs.Snapshot(ctx, ids)
		slices.SortFunc(rows, func(a, b job.Snapshot) int { return slices.Index(ids, a.ID) - slices.Index(ids, b.ID) })
	} else {
		rows, err = a.Jobs.List(ctx, viewer.Account)
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

// getManyProgress answers with one stream for many jobs: those that the request names, or the account's list. Who asks for
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
	control, release, err := a.admit(w, viewer)
	if err != nil {
		return err
	}
	defer release()
	m := &manyJobs{viewer: viewer, ids: ids, shown: make(map[job.ID]*shown)}
	if ids != nil {
		m.group = a.Hub.Group(ids)
	} else {
		m.group = a.Hub.AccountGroup(viewer.Account)
	}
	defer m.group.Close()
	waiting, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	whole, err := m.group.Wait(waiting)
	switch {
	case err != nil && r.Context().Err() == nil:
		return fmt.Errorf("%w: %w", hub.ErrUnavailable, err)
	case err != nil:
		return err
	case !viewer.Expires.IsZero() && !time.Now().Before(viewer.Expires):
		return errExpired
	}
	m.synced = syncedEvent(table.Deleted)
	if whole && ids != nil && m.seen(lastEventID(r), table.Deleted) {
		control.SetWriteDeadline(time.Now().Add(a.WriteTimeout))
		noContent(w)
		return nil
	}
	a.stream(w, r, control, viewer, m)
	return nil
}

// manyJobsOf are the viewer and the jobs that a request names, each once, in order; nil for the account's list.
func (a *API) manyJobsOf(r *http.Request) (viewer auth.Viewer, ids []job.ID, table job.Table, err error) {
	if viewer, err = a.Auth.Authenticate(r); err != nil {
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
	if table, err = a.Hub.Table(ctx); err != nil {
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

// manyJobs is the source of a stream of many jobs.
type manyJobs struct {
	viewer auth.Viewer
	group  *hub.Group
	ids    []job.ID // nil: the account's list
	shown  map[job.ID]*shown
	synced []byte // the event that says that all jobs were sent; nil when it was
}

// shown is a job as the viewer has been sent it.
type shown struct {
	row     job.Snapshot
	cursor  hub.Cursor
	ended   bool
	deleted bool // where that means that it has succeeded
}

func (m *manyJobs) next() (frames []hub.Frame, end string, more <-chan struct{}) {
	order, gone := m.group.Adjust()
	for _, id := range gone {
		frames = m.remove(frames, id)
	}
	if m.ids != nil {
		order = m.ids
	}
	changed := m.group.Changed()
	for _, id := range order {
		if changed[id] {
			frames = m.show(frames, id)
		}
	}
	if !m.allEnded() {
		if m.synced != nil && m.group.Whole() {
			frames = append(frames, hub.Frame{Data: m.synced})
			m.synced = nil
		}
		return frames, "", m.group.Wake()
	}
	if len(frames) > 0 {
		frames[len(frames)-1].ID = finalID(m.ids, func(id job.ID) job.Snapshot { return m.shown[id].row })
	}
	return frames, endFinal, nil
}

// show appends what the viewer has not seen of a job.
func (m *manyJobs) show(frames []hub.Frame, id job.ID) []hub.Frame {
	subscriber := m.group.Member(id)
	if subscriber == nil {
		return frames
	}
	was := m.shown[id]
	if was == nil || was.deleted {
		now := subscriber.Picture()
		if now.Deleted {
			m.group.Renew(id)
		}
		if !now.Found || now.Deleted || !m.viewer.Owns(now.Row.State.Account) {
			return frames
		}
		m.shown[id] = &shown{row: now.Row, cursor: now.Cursor, ended: now.End == hub.Final}
		frames = append(frames, hub.Frame{Data: jobEvent(now.Row)})
		for _, item := range now.Items {
			item.Data = withJobID(item.Data, id)
			frames = append(frames, item)
		}
		return frames
	}
	batch := subscriber.Changes(was.cursor)
	if batch.Deleted {
		m.group.Renew(id)
	}
	if batch.Removed || !m.viewer.Owns(batch.Account) {
		return m.remove(frames, id)
	}
	if batch.Cursor != was.cursor {
		for _, frame := range batch.Frames {
			frames = append(frames, hub.Frame{Data: withJobID(frame.Data, id), At: frame.At})
		}
	}
	*was = shown{row: batch.Row, cursor: batch.Cursor, ended: batch.End == hub.Final, deleted: batch.Deleted}
	return frames
}

// remove says that a job is not the viewer's to see any more.
func (m *manyJobs) remove(frames []hub.Frame, id job.ID) []hub.Frame {
	if m.shown[id] == nil {
		return frames
	}
	delete(m.shown, id)
	return append(frames, hub.Frame{Data: removedEvent(id)})
}

// allEnded reports whether all jobs that the request named have ended. An account's list never ends.
func (m *manyJobs) allEnded() bool {
	for _, id := range m.ids {
		if one := m.shown[id]; one == nil || !one.ended {
			return false
		}
	}
	return m.ids != nil
}

// seen reports whether the event of this id was the last of a stream in which all jobs had ended as they have now. Where
// rows of jobs that have succeeded are deleted, no more is known of those.
func (m *manyJobs) seen(lastEventID string, deleted job.Deleted) bool {
	if !hub.IsFinal(lastEventID) {
		return false
	}
	rows, missing := make(map[job.ID]job.Snapshot), false
	for _, id := range m.ids {
		subscriber := m.group.Member(id)
		if subscriber == nil {
			return false
		}
		now := subscriber.Picture()
		switch {
		case !now.Found || !m.viewer.Owns(now.Row.State.Account):
			missing = true
		case now.End != hub.Final:
			return false
		}
		rows[id] = now.Row
	}
	if missing {
		return deleted == job.DeletedCompleted
	}
	return lastEventID == finalID(m.ids, func(id job.ID) job.Snapshot { return rows[id] })
}

// finalID names the state in which jobs have ended, the same on each server.
func finalID(ids []job.ID, row func(job.ID) job.Snapshot) string {
	digest := sha256.New()
	for _, id := range ids {
		r := row(id)
		s := r.State
		fmt.Fprintf(digest, "%q %q %v %q %q\n", id, s.Status, s.Progress, s.Error, r.Run)
	}
	return hub.FinalID(digest.Sum(nil))
}

// jobEvent is {"type":"job",…} as its data line.
func jobEvent(row job.Snapshot) []byte {
	state, err := row.MarshalJSON()
	if err != nil {
		panic(err) // it only holds strings, integers and moments
	}
	return sse.Data(slices.Concat([]byte(`{"type":"job","jobId":`), job.Quote(string(row.ID)), []byte(`,"job":`), state, []byte(`}`)))
}

// syncedEvent is the named event that says that all jobs were sent: one that a page shows from before, and that was not
// among them, is not there any more. It says what that means.
func syncedEvent(deleted job.Deleted) []byte {
	return sse.AppendNamed(nil, "synced", fmt.Sprintf(`{"deleted":%q}`, deleted))
}

// removedEvent is {"type":"removed",…} as its data line.
func removedEvent(id job.ID) []byte {
	return sse.Data(slices.Concat([]byte(`{"type":"removed","jobId":`), job.Quote(string(id)), []byte(`}`)))
}

// withJobID makes the data line of an event one that names its job: jobId is the second key.
func withJobID(data []byte, id job.ID) []byte {
	first := bytes.IndexByte(data, ',') // after the type
	return slices.Concat(data[:first], []byte(`,"jobId":`), job.Quote(string(id)), data[first:])
}
