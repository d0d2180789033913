package main

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"jobprogress/internal/auth"
	"jobprogress/internal/pgtest"
)

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSecretsInFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	writeFile(t, file, secret+"\n")
	empty := filepath.Join(t.TempDir(), "empty")
	writeFile(t, empty, "\n")
	databaseURL := filepath.Join(t.TempDir(), "database")
	writeFile(t, databaseURL, "postgres://u:"+secret+"@h/d")
	for name, tt := range map[string]struct {
		env  map[string]string
		args []string
		want string // in the error, or nothing
	}{
		"from a file":         {env: map[string]string{"JOBPROGRESS_JWT_SECRET_FILE": file}},
		"a flag wins":         {env: map[string]string{"JOBPROGRESS_JWT_SECRET_FILE": "nowhere"}, args: []string{"--jwt-secret", secret}},
		"both":                {env: map[string]string{"JOBPROGRESS_JWT_SECRET_FILE": file, "JOBPROGRESS_JWT_SECRET": secret}, want: "JOBPROGRESS_JWT_SECRET and JOBPROGRESS_JWT_SECRET_FILE contradict each other"},
		"no such file":        {env: map[string]string{"JOBPROGRESS_JWT_SECRET_FILE": "nowhere"}, want: "JOBPROGRESS_JWT_SECRET_FILE: open nowhere"},
		"an empty file":       {env: map[string]string{"JOBPROGRESS_JWT_SECRET_FILE": empty}, want: "empty is empty"},
		"what is no secret":   {env: map[string]string{"JOBPROGRESS_JWT_SECRET": secret, "JOBPROGRESS_COOKIE_FILE": "nowhere"}},
		"a database URL":      {env: map[string]string{"JOBPROGRESS_JWT_SECRET_FILE": databaseURL}, want: "database holds a database URL"},
		"no previous secret":  {env: map[string]string{"JOBPROGRESS_JWT_SECRET_FILE": file, "JOBPROGRESS_JWT_PREVIOUS_SECRET_FILE": empty}},
		"a password as it is": {env: map[string]string{"JOBPROGRESS_JWT_SECRET": secret, "DATABASE_URL": "postgres://u:x#" + secret + "@h/d"}, want: "percent-encoded"},
		"a setting":           {env: map[string]string{"JOBPROGRESS_JWT_SECRET": secret, "DATABASE_URL": "postgres://u:x@h/d?sslmode=perhaps"}, want: "can't be used: sslmode is invalid"},
		"a pasted line":       {env: map[string]string{"JOBPROGRESS_JWT_SECRET": secret, "DATABASE_URL": "DATABASE_URL=postgres://u:" + secret + "@h/d"}, want: "DATABASE_URL (--database-url) is no URL"},
		"no URL of databases": {env: map[string]string{"JOBPROGRESS_JWT_SECRET": secret, "DATABASE_URL_FILE": file}, want: "is no URL like postgres://"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(append([]string{"serve"}, tt.args...), func(name string) string { return tt.env[name] }, os.Stdout, os.Stderr)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want %q", err, tt.want)
			case err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "is missing")):
				t.Errorf("%v shows the secret, or names a fault that there is not", err)
			}
		})
	}
}

// A password and a key are replaced while somebody watches.
func TestSecretsAreReplaced(t *testing.T) {
	t.Parallel()
	admin := pgtest.New(t)
	db := pgtest.Pool(t, admin)
	role := "rotated_" + strings.ToLower(rand.Text()[:8])
	exec := func(text string) {
		t.Helper()
		if _, err := db.Exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	exec(`create role ` + role + ` login superuser password '` + role + `'`)
	t.Cleanup(func() {
		if _, err := db.Exec(context.Background(), `drop role `+role); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	databaseFile, secretFile := filepath.Join(dir, "database"), filepath.Join(dir, "secret")
	databaseURL := pgtest.WithRole(admin, role)
	writeFile(t, databaseFile, databaseURL)
	writeFile(t, secretFile, secret)
	env := map[string]string{"DATABASE_URL_FILE": databaseFile, "JOBPROGRESS_JWT_SECRET_FILE": secretFile}
	s := serveForTestIn(t, admin, &http.Client{Transport: &http.Transport{}}, func(name string) string { return env[name] }, "--backstop-interval", "500ms")
	id := s.insert()
	stream := s.open("/api/jobs/" + id + "/progress")
	stream.until("running")

	exec(`alter role ` + role + ` password 'another'`)
	writeFile(t, databaseFile, strings.Replace(databaseURL, role+":"+role, role+":another", 1))
	syscall.Kill(os.Getpid(), syscall.SIGHUP)
	exec(`select pg_terminate_backend(pid) from pg_stat_activity where usename = '` + role + `'`)
	s.progress(id, 4)
	stream.until(`"done":4`)
	s.eventually("sessions with the new password", func() bool {
		response, _ := s.get("/api/jobs/" + id)
		_, body := s.get("/readyz")
		return response.StatusCode == http.StatusOK && body == "ready\n"
	})

	next := strings.Repeat("the next secret ", 2)
	writeFile(t, secretFile, next)
	token, err := auth.JWT{Keys: auth.Secret(next), Claim: "sub"}.Mint(ada, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	s.eventually("the new secret counts", func() bool {
		response, _ := s.get("/api/jobs/"+id, "Authorization: Bearer "+token)
		return response.StatusCode == http.StatusOK
	})
	stream.ends() // its token does not
}

// What the files of keys hold counts, as long as it makes sense.
func TestKeysFollowTheirFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		present, previous := filepath.Join(dir, "present"), filepath.Join(dir, "previous")
		writeFile(t, present, "one")
		writeFile(t, previous, "")
		var log strings.Builder
		f := &files{log: slog.New(slog.NewTextHandler(&log, nil)), signals: make(chan os.Signal)}
		c := &serveCommand{secretFiles: map[string]string{"JOBPROGRESS_JWT_SECRET": present, previousSecret: previous}}
		c.JWTSecret = "one"
		keys := c.secrets(f).(auth.SecretFiles)
		go f.run(t.Context())
		has := func(step string, want ...string) {
			t.Helper()
			time.Sleep(lookInterval)
			synctest.Wait()
			var got []string
			for _, key := range keys() {
				got = append(got, string(key))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", step, got, want)
			}
		}
		has("at first", "one")
		writeFile(t, previous, "one")
		writeFile(t, present, "three")
		has("replaced", "three", "one")
		writeFile(t, present, "\n")
		has("emptied, which must be a mistake", "three", "one")
		if !strings.Contains(log.String(), "present is empty") {
			t.Errorf("the log does not say so: %s", log.String())
		}
		writeFile(t, present, "three")
		os.Remove(previous)
		has("the previous one taken away", "three")

		// Kubernetes swaps a link.
		writeFile(t, filepath.Join(dir, "next"), "third")
		os.Remove(present)
		if err := os.Symlink("next", present); err != nil {
			t.Fatal(err)
		}
		has("behind a link", "third")

		// Nothing shows this but a SIGHUP.
		info, err := os.Stat(present)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, present, "fourt")
		if err := os.Chtimes(present, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		has("secretly", "third")
		f.signals <- syscall.SIGHUP
		has("after a SIGHUP", "fourt")
		writeFile(t, present, "postgres://u:p@h/d")
		has("a database URL", "fourt")

		// A reader of a pipe would wait for ever.
		os.Remove(present)
		if err := syscall.Mkfifo(present, 0o600); err != nil {
			t.Fatal(err)
		}
		has("a pipe", "fourt")
	})
}

func TestUnknownVariables(t *testing.T) {
	unknown, err := unknownVariables([]string{
		"JOBPROGRESS_JWT_SECERT=x", "JOBPROGRESS_JWT_SECRET=x", "JOBPROGRESS_JWT_SECRET_FILE=x", "JOBPROGRESS_COOKIE_FILE=x", "JOBPROGRESS_PRESET=x",
		"DATABASE_URLS=x", "JOBPROGRESS_SERVICE_HOST=10.0.0.1", "JOBPROGRESS_SERVICE_PORT_HTTP=80", "JOBPROGRESS_PORT_80_TCP_ADDR=10.0.0.1", "JOBPROGRESS_SERVICE_ROLE=x",
	})
	want := []string{"JOBPROGRESS_JWT_SECERT", "JOBPROGRESS_COOKIE_FILE", "JOBPROGRESS_PRESET"}
	if err != nil || !slices.Equal(unknown, want) {
		t.Errorf("%v, %v, want %v", unknown, err, want)
	}
}
