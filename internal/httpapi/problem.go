package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"jobprogress/internal/auth"
	"jobprogress/internal/hub"
	"jobprogress/internal/job"
	"jobprogress/internal/sse"
)

// problem is an error as a client sees it (RFC 9457).
type problem struct {
	Type   string   `json:"type"`
	Title  string   `json:"title"`
	Status int      `json:"status"`
	Code   string   `json:"code"`
	Detail string   `json:"detail"`
	IDs    []string `json:"ids,omitempty"` // of many that were named, those that are meant
}

func (p problem) Error() string { return p.Code + ": " + p.Detail }

// Is reports whether both have the same code.
func (p problem) Is(target error) bool {
	other, ok := target.(problem)
	return ok && other.Code == p.Code
}

func newProblem(status int, code, detail string) problem {
	return problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

// temporary reports whether it is worth coming back.
func (p problem) temporary() bool {
	return p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable
}

// All errors that a client can get. The codes are stable.
var (
	errUnauthenticated     = newProblem(http.StatusUnauthorized, "unauthenticated", "Send a valid token as Authorization: Bearer, or in the session cookie.")
	errOriginNotAllowed    = newProblem(http.StatusForbidden, "origin_not_allowed", "This origin may not read from here. The operator can add it to JOBPROGRESS_ALLOWED_ORIGINS.")
	errJobNotFound         = newProblem(http.StatusNotFound, "job_not_found", "There is no such job, or it is not yours.")
	errNoRoute             = newProblem(http.StatusNotFound, "not_found", "There is nothing here. Jobs are at /api/jobs/{id} and /api/jobs/{id}/progress.")
	errMethodNotAllowed    = newProblem(http.StatusMethodNotAllowed, "method_not_allowed", "The Allow header says what can be done here.")
	errTooManyStreams      = newProblem(http.StatusTooManyRequests, "too_many_streams", "This account has too many streams open.")
	errOverCapacity        = newProblem(http.StatusServiceUnavailable, "over_capacity", "This server has too many streams open.")
	errDraining            = newProblem(http.StatusServiceUnavailable, "draining", "This server is about to stop.")
	errDatabaseUnavailable = newProblem(http.StatusServiceUnavailable, "database_unavailable", "The job can't be read now.")
	errKeysUnavailable     = newProblem(http.StatusServiceUnavailable, "keys_unavailable", "Your token can't be verified now, because the keys for that can't be fetched.")
	errAuthUnavailable     = newProblem(http.StatusServiceUnavailable, "auth_unavailable", "Your session can't be verified now, because the application does not say whose it is.")
	errHeader              = newProblem(http.StatusRequestHeaderFieldsTooLarge, "headers_too_large", "The headers of the request are too long. Deleting cookies may help.")
	errBody                = newProblem(http.StatusBadRequest, "invalid_body", "Nothing here takes a body, and this one is too long or too slow to be passed over.")
	errTooManyIDs          = newProblem(http.StatusBadRequest, "too_many_ids", "One stream shows at most 100 jobs.")
	errNoAccount           = newProblem(http.StatusBadRequest, "no_account", "Without authentication there is no account: name jobs, as in /api/jobs/progress?id=A&id=B.")
	errInternal            = newProblem(http.StatusInternalServerError, "internal", "Something went wrong here. The server's log says what.")
)

// idForms are what ids look like.
var idForms = map[job.IDType]string{
	job.IDUUID:   "A job id is a UUID of 36 characters: 8-4-4-4-12 hexadecimal digits.",
	job.IDBigint: "A job id is an integer of 64 bits, in decimal digits without leading zeros.",
	job.IDText:   "A job id is a text of 1 to 200 bytes of UTF-8, percent-encoded.",
}

func invalidJobID(t job.IDType) problem {
	return newProblem(http.StatusBadRequest, "invalid_job_id", idForms[t])
}

// asProblem is where errors become statuses.
func asProblem(err error) problem {
	if p, ok := errors.AsType[problem](err); ok {
		return p
	}
	switch {
	case errors.Is(err, auth.ErrMissing), errors.Is(err, auth.ErrInvalid):
		return errUnauthenticated
	case errors.Is(err, auth.ErrNoKeys):
		return errKeysUnavailable
	case errors.Is(err, auth.ErrNoAnswer):
		return errAuthUnavailable
	case errors.Is(err, auth.ErrNoSessions):
		return errDatabaseUnavailable
	case errors.Is(err, hub.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return errDatabaseUnavailable
	}
	return errInternal
}

// handle serves requests of the methods, and turns the error of h into the answer.
func (a *API) handle(h func(http.ResponseWriter, *http.Request) error, methods ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if methods != nil && !slices.Contains(methods, r.Method) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			a.refuse(w, r, errMethodNotAllowed)
			return
		}
		err := h(w, r)
		if err != nil && r.Context().Err() != nil {
			panic(http.ErrAbortHandler) // the client has gone, and an empty answer would be taken for a 200
		}
		if err != nil {
			a.refuse(w, r, err)
		}
	})
}

func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.config.WriteTimeout)) // from now on, not from the request
	p := asProblem(err)
	a.metrics.refused.WithLabelValues(p.Code).Inc()
	a.config.Log.Debug("request refused", "code", p.Code, "method", r.Method, "path", r.URL.Path, "error", err)
	switch {
	case p.Code == errInternal.Code:
		a.config.Log.Error("request failed", "path", r.URL.Path, "error", err)
	case errors.Is(err, hub.ErrUnavailable), errors.Is(err, auth.ErrNoKeys), errors.Is(err, auth.ErrNoSessions), errors.Is(err, auth.ErrNoAnswer):
		// And not readiness, which has no cause to give.
		a.unavailable.Do(func() { a.config.Log.Warn("request refused for now", "code", p.Code, "error", err) })
	}
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	if p.temporary() {
		wait := a.retryDelay.next()
		if (r.Pattern == streamPattern || r.Pattern == manyPattern) && accepts(r, sse.ContentType) {
			// EventSource gives up for ever on any status but 200.
			header.Set("Content-Type", sse.ContentType)
			b := sse.AppendRetry(nil, wait)
			w.Write(sse.AppendComment(b, p.Code))
			return
		}
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	if p.Code == errUnauthenticated.Code {
		challenge := `Bearer realm="jobprogress"`
		if errors.Is(err, auth.ErrInvalid) {
			challenge += `, error="invalid_token"`
		}
		header.Set("WWW-Authenticate", challenge)
	}
	header.Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// accepts reports whether the client asks for the media type by name, as EventSource does for its own.
func accepts(r *http.Request, wanted string) bool {
	for _, header := range r.Header.Values("Accept") {
		for accepted := range strings.SplitSeq(header, ",") {
			if media, _, err := mime.ParseMediaType(accepted); err == nil && media == wanted {
				return true
			}
		}
	}
	return false
}
