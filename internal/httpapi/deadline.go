package httpapi

import (
	"io"
	"net/http"
	"time"
)

// maxHeaders is how long the headers of a request may be, in bytes; those of a stream are kept.
const maxHeaders = 32 << 10

// limitHeaders refuses headers that are too long. net/http would answer HTTP/1.1 as well, but end the whole connection on
// HTTP/2: behind a proxy, that of other visitors too.
func (a *API) limitHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := len(r.RequestURI)
		for name, values := range r.Header {
			for _, value := range values {
				size += len(name) + len(value)
			}
		}
		if size > maxHeaders {
			a.refuse(w, r, errHeader)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// limitTime bounds the time in which a client sends an unwanted body, and takes its answer. Streams set a deadline
// of their own for each write.
func (a *API) limitTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w) // every server of ours can set deadlines
		var err error
		if r.ContentLength != 0 {
			control.SetReadDeadline(time.Now().Add(a.config.WriteTimeout))
			_, err = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody))
			if err == nil {
				control.SetReadDeadline(time.Time{})
			}
		}
		control.SetWriteDeadline(time.Now().Add(a.config.WriteTimeout))
		if err != nil {
			w.Header().Set("Connection", "close")
			a.refuse(w, r, errBody)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// maxBody is how much of a body is passed over, in bytes.
const maxBody = 64 << 10
