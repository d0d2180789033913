package trust

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"
)

// notify sends each payload as anybody who may connect can.
func (w *world) notify(ctx context.Context, payloads ...string) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for _, p := range payloads {
		if _, err := conn.Exec(ctx, `select pg_notify('jobprogress', $1)`, p); err != nil {
			return err
		}
	}
	return nil
}

// garbage notifies what names no job.
func garbage(ctx context.Context, w *world, rng *rand.Rand) error {
	id := w.anyJob(rng)
	return w.notify(ctx,
		"", " ", "garbage", "null", "[]", "{"+id+"}", "urn:uuid:"+id, id+id, id[:len(id)-1], id[:len(id)-1]+"g", "0"+id, "+"+id, id+" ", strings.ReplaceAll(id, "-", ""),
		strings.Repeat("0", 36), strings.Repeat("-", 36), strings.Repeat("é", 18), "\x01\n\x7f", "probe", "probe ", "probe  ", "PROBE x",
		strings.Repeat("[", 7000), strings.Repeat("é", 3900), "probe "+strings.Repeat("x", 7900))
}

// forge notifies jobs that have not changed, jobs that are none, what version 1 notified, probes of nobody, and what it
// has received itself.
func forge(ctx context.Context, w *world, rng *rand.Rand) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(ctx, `listen jobprogress`); err != nil {
		return err
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		listening, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		received, err := conn.WaitForNotification(listening)
		cancel()
		if conn.IsClosed() {
			return err
		}
		id, account := w.anyJob(rng), []string{ada, ben}[rng.IntN(2)]
		payloads := []string{
			id, strings.ToUpper(id), w.anyJob(rng), uuid.NewString(), uuid.Nil.String(), account,
			fmt.Sprint("probe ", rng.Uint64()),
			`{"kind":"state","job":"` + id + `","xid":"18446744073709551614","account":"` + account + `","status":"running","progress":{"total":1,"done":0,"succeeded":0}}`,
			`{"kind":"state","job":"` + id + `","xid":"9000000000","account":"` + account + `","status":"completed","error":"forged"}`,
			`{"kind":"item","job":"` + id + `","item":{"itemId":"s1","itemKind":"song","status":"failed","label":"item 0"}}`,
			`{"kind":"row","job":"` + id + `"}`,
		}
		if received != nil {
			payloads = append(payloads, received.Payload)
		}
		for _, p := range payloads {
			if _, err := conn.Exec(ctx, `select pg_notify('jobprogress', $1)`, p); err != nil {
				return err
			}
		}
	}
	return nil
}
