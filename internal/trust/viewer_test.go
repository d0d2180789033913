package trust

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"jobprogress/internal/auth"
)

// viewer is a browser: it watches one job after another as EventSource would, but also stalls, vanishes, comes back
// with its last id, and asks for jobs that are not its own.
type viewer struct {
	world   *world
	rng     *rand.Rand
	name    int
	account string
	client  *http.Client

	mu   sync.Mutex
	view *view
}

// newClient speaks HTTP/1.1 for two of three viewers, whose streams are sockets of the server's own, and HTTP/2 for others.
func newClient(viewer int) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(viewer%3 != 0)
	protocols.SetUnencryptedHTTP2(viewer%3 == 0)
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Protocols: protocols}}
}

// view is what one page saw of one job, over all its connections.
type view struct {
	viewer  *viewer
	job     string
	many    bool // over a stream of many jobs
	seen    []sight
	checked int // how many of them were
	phase   int64

	lastID  string
	ended   string           // "", or why the page came to rest: final (204), gone (404)
	shown   sight            // the newest of each part
	items   map[string]int64 // item → the write that it shows
	highest map[string]int64
}

// sight is one thing seen.
type sight struct {
	at         time.Duration
	connection int
	replica    int
	id         string
	what       string // progress, status, error, item, or what a connection began or ended with
	data       string

	run, done, seq int64 // of progress; of others, what was shown before
	status         string
	err            int64 // seq in the error text
	item           string
	itemSeq        int64
}

const (
	// watchdog is how long a page waits for a sign of life; servers ping each half second.
	watchdog = 2500 * time.Millisecond
	// grace is how long a server waits for a job that is not there, or another's.
	grace = 3 * time.Second
	// impatience divides the time after which the server asks a page to come back.
	impatience = 4
)

func (v *viewer) run(ctx context.Context) {
	defer v.client.CloseIdleConnections()
	for ctx.Err() == nil {
		v.mu.Lock()
		one := v.view
		phase, calm := v.world.phase()
		calm = calm || v.world.Steady
		switch {
		case one == nil, one.ended != "" && !calm && v.rng.IntN(20) == 0:
			v.view = v.look()
			one = v.view
		case one.ended != "" && one.phase != phase: // a verdict from before may be out of date
			one.ended = ""
		}
		one.phase = phase
		ended := one.ended
		v.mu.Unlock()
		if ended != "" {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		again := v.connect(ctx, one)
		if !calm {
			switch v.rng.IntN(12) {
			case 0: // another page
				v.mu.Lock()
				v.view = v.look()
				v.mu.Unlock()
			case 1: // away for a while
				pause(ctx, time.Duration(v.rng.IntN(1500))*time.Millisecond)
			}
		}
		pause(ctx, again)
	}
}

// look begins a view of some job.
func (v *viewer) look() *view {
	one := &view{viewer: v, job: v.world.anyJob(v.rng), items: make(map[string]int64), highest: make(map[string]int64)}
	v.world.addView(one)
	return one
}

// connect opens the stream once and reads it to its end, or until the viewer does something else. It returns how long to
// wait until the next time.
func (v *viewer) connect(ctx context.Context, one *view) (again time.Duration) {
	again = time.Duration(50+v.rng.IntN(200)) * time.Millisecond
	n := v.rng.IntN(len(v.world.replicas))
	connection := int(v.world.report.connections.Add(1))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dog := time.AfterFunc(grace+watchdog, cancel)
	defer dog.Stop()

	ttl := time.Hour
	if v.rng.IntN(10) == 0 && !v.world.Steady {
		ttl = time.Duration(1+v.rng.IntN(3)) * time.Second
	}
	token, err := auth.JWT{Keys: auth.Secret(secret), Claim: "sub"}.Mint(v.account, ttl)
	if err != nil {
		panic(err) // it is a string of ours
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+v.world.replicas[n].toViewers.Addr+"/api/jobs/"+one.job+"/progress", nil)
	if err != nil {
		panic(err) // the address is ours
	}
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Authorization", "Bearer "+token)
	if one.lastID != "" {
		r.Header.Set("Last-Event-ID", one.lastID)
	}
	add := func(s sight) {
		s.at, s.connection, s.replica = time.Since(v.world.history.start), connection, n
		v.mu.Lock()
		defer v.mu.Unlock()
		one.take(s)
	}
	response, err := v.client.Do(r)
	if err != nil {
		return again
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusUnauthorized && ttl < time.Hour {
		return again // it was on its way for longer than the token was good for
	}
	add(sight{what: fmt.Sprint(response.StatusCode), data: "with id " + one.lastID})
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		v.world.report.noContents.Add(1)
		v.end(one, "final")
		return 0
	case http.StatusNotFound:
		v.end(one, "gone")
		return 0
	default:
		return again
	}

	leaveAfter, stallAfter := -1, -1
	switch v.rng.IntN(6) {
	case 0:
		leaveAfter = v.rng.IntN(60)
	case 1:
		stallAfter = v.rng.IntN(60)
	}
	var id, event, data string
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for count := 0; lines.Scan(); count++ {
		dog.Reset(watchdog)
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "retry":
			var ms int
			fmt.Sscan(value, &ms)
			again = time.Duration(ms) * time.Millisecond / impatience
		case "id":
			id = value
		case "event":
			event = value
		case "data":
			data = value
		case "": // the end of an event, which counts only as a whole, or a comment
			if lines.Text() != "" {
				break
			}
			if event == "" && data != "" {
				s := parse(data)
				s.id = id
				add(s)
			}
			event, data = "", ""
		}
		if _, calm := v.world.phase(); calm || v.world.Steady {
			continue
		}
		if count == leaveAfter {
			return again
		}
		if count == stallAfter {
			dog.Stop()
			pause(ctx, time.Duration(v.rng.IntN(3500))*time.Millisecond)
			dog.Reset(watchdog)
		}
	}
	add(sight{what: "end", data: fmt.Sprint(lines.Err())})
	return again
}

func (v *viewer) end(one *view, why string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	one.ended = why
}

func parse(data string) sight {
	var event struct {
		Type                           string
		Total, Done, Succeeded, Failed int64
		Status, Message, ItemID, Label string
	}
	if err := json.Unmarshal([]byte(data), &event); err != nil {
		return sight{what: "garbage", data: data}
	}
	s := sight{what: event.Type, data: data}
	if len(s.data) > 160 {
		s.data = s.data[:160] + "…"
	}
	switch event.Type {
	case "progress":
		s.run, s.done, s.seq = event.Total, event.Done, event.Succeeded
	case "status":
		s.status = event.Status
	case "error":
		s.err = number(event.Message)
		if event.Message == "job no longer exists" {
			s.what = "deleted"
		}
	case "item":
		s.item, s.itemSeq = event.ItemID, number(event.Label)
	}
	return s
}

// take adds what was seen to the view. The caller holds the viewer's mu.
func (one *view) take(s sight) {
	switch s.what {
	case "progress":
		one.shown.run, one.shown.done, one.shown.seq = s.run, s.done, s.seq
	case "status":
		one.shown.status = s.status
	case "error":
		one.shown.err = s.err
	case "item":
		s.run = one.shown.run // in which it is shown
		one.items[s.item] = s.itemSeq
	}
	switch s.what {
	case "progress", "status", "error", "item", "deleted":
		one.lastID = s.id
		one.viewer.world.report.states.Add(1)
	}
	if s.what == "status" { // what it ended with is checked against what was shown before
		s.run, s.done, s.seq, s.err = one.shown.run, one.shown.done, one.shown.seq, one.shown.err
		if terminal(s.status) {
			one.viewer.world.report.finals.Add(1)
		}
	}
	one.seen = append(one.seen, s)
}

func terminal(status string) bool { return status == "completed" || status == "failed" }

// print is what the view saw last.
func (one *view) print(most int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "viewer %d of account …%s, job %s, %s, last id %s\n", one.viewer.name, one.viewer.account[30:], one.job, one.ended, one.lastID)
	for _, s := range one.seen[max(0, len(one.seen)-most):] {
		fmt.Fprintf(&b, "  %8.3f  connection %d to replica %d  %s  %s\n", s.at.Seconds(), s.connection, s.replica, s.what, s.data)
	}
	return b.String()
}
