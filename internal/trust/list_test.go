package trust

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"jobprogress/internal/auth"
)

// lister is a page that shows many jobs over one stream: those of its account, or some that it names.
type lister struct {
	*viewer
	pages sync.Mutex // guards what follows; taken before the viewer's mu
	ids   []string   // nil: the account's list
	views map[string]*view
	shown map[string]bool // in this connection
	last  string          // event id
	final bool            // it was answered 204
	phase int64
}

func newLister(w *world, rng *rand.Rand, name int) *lister {
	return &lister{
		viewer: &viewer{world: w, rng: rng, name: name, account: []string{ada, ben}[name%2],
			client: newClient(name)},
		views: make(map[string]*view),
		shown: make(map[string]bool),
	}
}

func (l *lister) run(ctx context.Context) {
	defer l.client.CloseIdleConnections()
	for ctx.Err() == nil {
		phase, calm := l.world.phase()
		l.pages.Lock()
		if !calm && l.rng.IntN(10) == 0 { // another page
			l.ids, l.last, l.final = nil, "", false
			if l.rng.IntN(2) == 0 {
				for range 1 + l.rng.IntN(3) {
					l.ids = append(l.ids, l.world.anyJob(l.rng))
				}
			}
		}
		if l.phase != phase { // what has ended may have been started again
			l.phase, l.final = phase, false
		}
		final := l.final
		l.pages.Unlock()
		if !final {
			l.connect(ctx)
		}
		pause(ctx, time.Duration(50+l.rng.IntN(200))*time.Millisecond)
	}
}

// connect opens the stream once, and reads it until it ends or the page goes away.
func (l *lister) connect(ctx context.Context) {
	n := l.rng.IntN(len(l.world.replicas))
	connection := int(l.world.report.connections.Add(1))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dog := time.AfterFunc(grace+watchdog, cancel)
	defer dog.Stop()
	token, err := auth.JWT{Keys: auth.Secret(secret), Claim: "sub"}.Mint(l.account, time.Hour)
	if err != nil {
		panic(err) // it is a string of ours
	}
	l.pages.Lock()
	query, last, named := url.Values{"id": l.ids}.Encode(), l.last, l.ids != nil
	l.shown = make(map[string]bool) // all is sent again
	l.pages.Unlock()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.world.replicas[n].toViewers.Addr+"/api/jobs/progress?"+query, nil)
	if err != nil {
		panic(err) // the address is ours
	}
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Authorization", "Bearer "+token)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	response, err := l.client.Do(r)
	if err != nil {
		return
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNoContent && named && last != "":
		l.world.report.noContents.Add(1)
		l.pages.Lock()
		l.final = true
		l.pages.Unlock()
		return
	case response.StatusCode != http.StatusOK:
		l.world.broken("a stream of many jobs was answered %s", response.Status)
		return
	}
	leaveAfter := -1
	if l.rng.IntN(6) == 0 {
		leaveAfter = l.rng.IntN(60)
	}
	var id, event, data string
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for count := 0; lines.Scan(); count++ {
		dog.Reset(watchdog)
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "event":
			event = value
		case "data":
			data = value
		case "":
			if lines.Text() != "" {
				break
			}
			if event == "" && data != "" {
				l.take(data, id, sight{at: time.Since(l.world.history.start), connection: connection, replica: n})
			}
			id, event, data = "", "", ""
		}
		if _, calm := l.world.phase(); count == leaveAfter && !calm {
			return
		}
	}
}

// take adds an event to the view of its job.
func (l *lister) take(data, id string, s sight) {
	var event struct {
		Type, JobID string
		Job         struct {
			Status   string
			Error    *string
			Progress json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(data), &event); err != nil || event.JobID == "" {
		l.world.broken("a stream of many jobs says %s", data)
		return
	}
	l.pages.Lock()
	defer l.pages.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if id != "" {
		l.last = id
	}
	one := l.views[event.JobID]
	if one == nil {
		one = &view{viewer: l.viewer, job: event.JobID, many: true, items: make(map[string]int64), highest: make(map[string]int64)}
		l.views[event.JobID] = one
		l.world.addView(one)
	}
	add := func(part string) {
		seen := parse(part)
		seen.at, seen.connection, seen.replica = s.at, s.connection, s.replica
		one.take(seen)
	}
	switch event.Type {
	case "job":
		if l.shown[event.JobID] {
			l.world.broken("job %s is shown twice", event.JobID)
		}
		l.shown[event.JobID] = true
		message := ""
		if event.Job.Error != nil {
			message = *event.Job.Error
		}
		text, _ := json.Marshal(message)
		add(`{"type":"progress",` + string(event.Job.Progress[1:]))
		add(`{"type":"error","message":` + string(text) + `}`)
		add(fmt.Sprintf(`{"type":"status","status":%q}`, event.Job.Status))
		return
	case "removed":
		delete(l.shown, event.JobID)
	}
	if event.Type != "removed" && !l.shown[event.JobID] {
		l.world.broken("%s of job %s, which is not shown", event.Type, event.JobID)
	}
	add(data)
}

// differs returns how the page is not yet as the rows are; "" when it is.
func (l *lister) differs(rows map[string]row) string {
	l.pages.Lock()
	defer l.pages.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.final { // what it showed was checked as it came
		for _, id := range l.ids {
			if r, found := rows[id]; !found || r.account != l.account || !terminal(r.status) {
				return fmt.Sprintf("it was answered 204, and job %s has not ended", id)
			}
		}
		return ""
	}
	for id, r := range rows {
		if r.account != l.account || l.ids != nil && !contains(l.ids, id) {
			continue
		}
		if !l.shown[id] {
			return fmt.Sprintf("job %s is not shown", id)
		}
		if wrong := l.views[id].shows(r); wrong != "" {
			return fmt.Sprintf("job %s: %s", id, wrong)
		}
	}
	for id := range l.shown {
		if r, found := rows[id]; !found || r.account != l.account {
			return fmt.Sprintf("job %s is gone or another's, and still shown", id)
		}
	}
	return ""
}

func contains(ids []string, id string) bool {
	return slices.Contains(ids, id)
}
