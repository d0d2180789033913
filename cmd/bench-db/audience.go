package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// audience is a viewer for each of some jobs.
type audience struct {
	url    string
	client *http.Client
	cancel context.CancelFunc
	gone   sync.WaitGroup

	mu     sync.Mutex
	shown  map[string]int64 // what each job's viewer shows
	behind []time.Duration  // how old what they were shown was, since begin
}

func newAudience(url string) *audience {
	return &audience{url: url, shown: make(map[string]int64),
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}}
}

// watch opens a stream for each job, and returns when all show something.
func (a *audience) watch(ctx context.Context, ids []string) error {
	ctx, a.cancel = context.WithCancel(ctx)
	first := make(chan error, len(ids))
	for _, id := range ids {
		a.gone.Go(func() { a.view(ctx, id, first) })
	}
	for range ids {
		if err := <-first; err != nil {
			return err
		}
	}
	return nil
}

var doneKey = []byte(`"done":`)

// view shows a job until its stream ends. It tells first of its first frame, or of why there is none.
func (a *audience) view(ctx context.Context, id string, first chan<- error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/api/jobs/"+id+"/progress", nil)
	if err != nil {
		first <- err
		return
	}
	response, err := a.client.Do(request)
	if err != nil {
		first <- err
		return
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		first <- fmt.Errorf("job %s is answered %s", id, response.Status)
		return
	}
	told := false
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		_, rest, ok := bytes.Cut(lines.Bytes(), doneKey)
		if !ok {
			continue
		}
		now := time.Now()
		number, _, _ := bytes.Cut(rest, []byte(","))
		done, _ := strconv.ParseInt(string(number), 10, 64)
		a.mu.Lock()
		a.shown[id] = done
		if told && done > 0 {
			a.behind = append(a.behind, now.Sub(time.UnixMicro(done)))
		}
		a.mu.Unlock()
		if !told {
			told = true
			first <- nil
		}
	}
	if ctx.Err() == nil && !told {
		first <- fmt.Errorf("the stream of job %s ended", id)
	}
}

// begin forgets how far behind they were.
func (a *audience) begin() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.behind = nil
}

// end returns how far behind each frame since begin was when it was shown.
func (a *audience) end() []time.Duration {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.behind
}

// wrong counts those who do not show the last state of their row.
func (a *audience) wrong(last map[string]int64) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, done := range a.shown {
		if last[id] != done {
			n++
		}
	}
	return n
}

func (a *audience) close() {
	if a.cancel != nil {
		a.cancel()
	}
	a.gone.Wait()
}
