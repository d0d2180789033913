package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"time"

	"jobprogress/internal/hub"
	"jobprogress/internal/job"
)

// readTimeout bounds a read of one row, also while the database does not answer.
const readTimeout = 5 * time.Second

// jobID is the job that a request names. What an id looks like depends on the table.
func (a *API) jobID(r *http.Request) (job.ID, job.Table, error) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	table, err := a.config.Hub.Table(ctx)
	if err != nil {
		return "", table, err
	}
	id, err := table.IDType.Parse(r.PathValue("id"))
	if err != nil {
		return "", table, invalidJobID(table.IDType)
	}
	return id, table, nil
}

// getJob answers with the present state of a job as JSON.
func (a *API) getJob(w http.ResponseWriter, r *http.Request) error {
	viewer, err := a.config.Auth.Authenticate(r)
	if err != nil {
		return err
	}
	id, _, err := a.jobID(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	rows, err := a.config.Jobs.Snapshot(ctx, []job.ID{id})
	if err != nil {
		return fmt.Errorf("%w: %w", hub.ErrUnavailable, err)
	}
	if len(rows) != 1 || !rows[0].Found || !viewer.Owns(rows[0].State.Account) {
		return errJobNotFound
	}
	body, err := rows[0].MarshalJSON()
	if err != nil {
		return err
	}
	answerJSON(w, r, body)
	return nil
}

// answerJSON answers with JSON and an ETag, or with 304.
func answerJSON(w http.ResponseWriter, r *http.Request, body []byte) {
	digest := sha256.Sum256(body)
	w.Header().Set("ETag", `"`+base64.RawURLEncoding.EncodeToString(digest[:12])+`"`)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "private, no-cache")
	r.Header.Del("Range") // half a state is none
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(append(body, '\n')))
}
