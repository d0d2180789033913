package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// slowness is how late the same commits came to viewers and to a bare listener beside them.
type slowness struct{ frames, bare []time.Duration }

const (
	// slowJobs are updated slowRate times a second altogether: a few times each.
	slowJobs = 20
	slowRate = 60
)

var doneInNotice = regexp.MustCompile(`"done":(\d+)`)

// slowWork has a few watched jobs updated a few times a second.
func (b *bench) slowWork(ctx context.Context) (slow slowness, err error) {
	s := b.subjects[slices.IndexFunc(b.subjects, func(s *subject) bool { return s.watched >= slowJobs })]
	if err := s.service.calm(ctx); err != nil {
		return slow, err
	}
	listener, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return slow, err
	}
	defer listener.Close(context.WithoutCancel(ctx))
	if _, err := listener.Exec(ctx, "listen jobprogress"); err != nil {
		return slow, err
	}
	listening, stop := context.WithCancel(ctx)
	var listens sync.WaitGroup
	listens.Go(func() {
		for {
			n, err := listener.WaitForNotification(listening)
			now := time.Now()
			if err != nil {
				return
			}
			if found := doneInNotice.FindStringSubmatch(n.Payload); found != nil {
				done, _ := strconv.ParseInt(found[1], 10, 64)
				slow.bare = append(slow.bare, now.Sub(time.UnixMicro(done)))
			}
		}
	})
	s.audience.begin()
	_, err = s.pgbench(ctx, b, script(slowJobs), "-c", "4", "-j", "1", "-R", fmt.Sprint(slowRate), "-T", fmt.Sprint(int(b.slowTime.Seconds())))
	time.Sleep(time.Second) // the last ones arrive
	stop()
	listens.Wait()
	slow.frames = s.audience.end()
	return slow, err
}

// listenTo hears what is notified, as whoever attached a trigger of their own would, and makes nothing of it.
func listenTo(conn *pgx.Conn) {
	for {
		if _, err := conn.WaitForNotification(context.Background()); err != nil {
			return
		}
	}
}
