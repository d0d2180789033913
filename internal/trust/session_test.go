package trust

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"syscall"
	"time"

	"jobprogress/internal/auth"
)

// terminate ends the servers' sessions of that name.
func terminate(name string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rng *rand.Rand) error {
		conn, err := w.connect(ctx)
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		for i := range 1 + rng.IntN(3) {
			tag, err := conn.Exec(ctx, terminateSQL, name)
			if err != nil {
				return err
			}
			if i == 0 && tag.RowsAffected() == 0 {
				return fmt.Errorf("no backend to terminate")
			}
			pause(ctx, time.Duration(rng.IntN(300))*time.Millisecond)
		}
		return nil
	}
}

const terminateSQL = `select pg_terminate_backend(pid) from pg_stat_activity
	where datname = current_database() and application_name = $1`

// terminatePool ends the sessions of the pools, of which there are some only while somebody asks for JSON.
func terminatePool(ctx context.Context, w *world, rng *rand.Rand) error {
	for range 5 {
		w.askJSON(ctx, rng)
		if err := terminate("jobprogress")(ctx, w, rng); err != nil {
			return err
		}
		w.askJSON(ctx, rng)
	}
	return nil
}

// askJSON asks each server for the state of a job once.
func (w *world) askJSON(ctx context.Context, rng *rand.Rand) {
	account := []string{ada, ben}[rng.IntN(2)]
	token, err := auth.JWT{Keys: auth.Secret(secret), Claim: "sub"}.Mint(account, time.Hour)
	if err != nil {
		panic(err) // it is a string of ours
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, replica := range w.replicas {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+replica.addr+"/api/jobs/"+w.anyJob(rng), nil)
		if err != nil {
			panic(err) // the address is ours
		}
		r.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			continue // another fault has the server in hand
		}
		response.Body.Close()
		switch response.StatusCode {
		case http.StatusOK, http.StatusNotFound, http.StatusServiceUnavailable:
		default:
			w.broken("replica %d answers %s with %s", replica.name, r.URL.Path, response.Status)
		}
	}
}

// freezeSession has one of the servers' sessions not answer, and not end either. Where its process is out of reach, the
// session ends.
func freezeSession(ctx context.Context, w *world, rng *rand.Rand) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	var pid int
	name := []string{"jobprogress listen", "jobprogress read"}[rng.IntN(2)]
	err = conn.QueryRow(ctx, `select pid from pg_stat_activity
		where datname = current_database() and application_name = $1 order by random() limit 1`, name).Scan(&pid)
	if err != nil {
		return fmt.Errorf("find session %q: %w", name, err)
	}
	onThisMachine := strings.HasPrefix(w.server.From, "PostgreSQL in ") // a container has pids of its own
	if !onThisMachine || syscall.Kill(pid, syscall.SIGSTOP) != nil {
		_, err := conn.Exec(ctx, `select pg_terminate_backend($1)`, pid)
		return err
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	pause(ctx, time.Duration(1000+rng.IntN(4000))*time.Millisecond)
	return nil
}

// holdLocks keeps the servers from half of the locks, which they ask for with each new session.
func holdLocks(ctx context.Context, w *world, rng *rand.Rand) error {
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for range 3 {
		_, err := conn.Exec(ctx, terminateSQL, "jobprogress read")
		if err == nil {
			_, err = conn.Exec(ctx, `select pg_try_advisory_lock(1785684592, key) from generate_series($1::int, 256, 2) as key`, rng.IntN(2))
		}
		if err != nil {
			return err
		}
		hold(ctx, rng)
		if _, err := conn.Exec(ctx, `select pg_advisory_unlock_all()`); err != nil {
			return err
		}
	}
	return nil
}
