package main

import (
	"context"
	"crypto/rand"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
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
		"no URL of databases": {env: map[string]string{"JOBPROGRESS_JWT_SECRET": secret, "DATABASE_URL_FILE": file}, want: "DATABASE_URL"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(append([]string{"serve"}, tt.args...), func(name string) string { return tt.env[name] }, os.Stdout, os.Stderr)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want %q", err, tt.want)
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
	t.Cleanup(func() { db.Exec(context.Background(), `drop role `+role) })
	dir := t.TempDir()
	databaseFile, secretFile := filepath.Join(dir, "database"), filepath.Join(dir, "secret")
	databaseURL := pgtest.WithRole(admin, role)
	writeFile(t, databaseFile, databaseURL)
	writeFile(t, secretFile, secret)
	env := map[string]string{"DATABASE_URL_FILE": databaseFile, "JOBPROGRESS_JWT_SECRET_FILE": secretFile}
	s := serveForTestIn(t, admin, &http.Client{Transport: &http.Transport{}}, func(name string) string { return env[name] })
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
