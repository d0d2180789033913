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
	done   map[string]int64           // by job, as its viewer shows it
	items  map[string]map[string]bool // by job, those that its viewer has been sent
	behind []time.Duration            // how old the progress was that they were sent, since begin
}

// shown is what a viewer must show of a job.
type shown struct {
	done  int64
	items int // how many
}

func newAudience(url string) *audience {
	return &audience{
		url:    url,
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}},
		done:   make(map[string]int64),
		items:  make(map[string]map[string]bool),
	}
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

// view shows a job until its stream ends. It sends nil to first at its first progress, or the error if there is none.
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
	started := false
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if a.show(id, lines.Bytes(), started) && !started {
			started = true
			first <- nil
		}
	}
	if ctx.Err() == nil && !started {
		first <- fmt.Errorf("the stream of job %s ended", id)
	}
}

var (
	doneKey = []byte(`"done":`)
	itemKey = []byte(`"itemId":"`)
)

// show takes a line of a stream, and reports whether it is of the job's progress. Its age counts unless it is the first.
func (a *audience) show(id string, line []byte, counts bool) bool {
	now := time.Now()
	if _, rest, ok := bytes.Cut(line, itemKey); ok {
		item, _, _ := bytes.Cut(rest, []byte(`"`))
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.items[id] == nil {
			a.items[id] = make(map[string]bool)
		}
		a.items[id][string(item)] = true
		return false
	}
	_, rest, ok := bytes.Cut(line, doneKey)
	if !ok {
		return false
	}
	number, _, _ := bytes.Cut(rest, []byte(","))
	done, _ := strconv.ParseInt(string(number), 10, 64)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done[id] = done
	if counts && done > 0 {
		a.behind = append(a.behind, now.Sub(time.UnixMicro(done)))
	}
	return true
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

// end returns how far behind each progress since begin was when it arrived.
func (a *audience) end() []time.Duration {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.behind
}

// inexact counts the viewers that do not show the last state of their row, or with items not all items of their job.
func (a *audience) inexact(last map[string]shown, items bool) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, done := range a.done {
		if last[id].done != done || items && last[id].items != len(a.items[id]) {
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
