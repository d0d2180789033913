package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"jobprogress/internal/store"
	"jobprogress/sql"
)

// shared is the server of the tests of one package, with a template that holds the job table and jobprogress.
var shared struct {
	server   *Server
	template string
}

// Main returns a test main that has a server: func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }.
func Main(m *testing.M) interface{ Run() int } { return main{m} }

type main struct{ m *testing.M }

func (r main) Run() int {
	ctx := context.Background()
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, "pgtest: "+format+"\n", args...) }
	server, err := Start(ctx, say)
	if err != nil {
		say("%v", err)
		return 1
	}
	say("testing with %s", server.From)
	shared.server = server
	defer server.Stop()
	if shared.template, err = CreateInstalled(ctx, server.URL); err != nil {
		say("%v", err)
		return 1
	}
	defer drop(shared.server.URL, shared.template)
	return r.m.Run()
}

// CreateInstalled makes a database with the stand-in job table, and jobprogress attached to it. It returns its name.
func CreateInstalled(ctx context.Context, serverURL string) (name string, err error) {
	name = "jobprogress_" + strings.ToLower(rand.Text()[:8])
	if err := execute(ctx, serverURL, "create database "+name); err != nil {
		return "", err
	}
	database := WithDatabase(serverURL, name)
	if err := execute(ctx, database, sql.Job); err != nil {
		return "", err
	}
	return name, store.Install(ctx, database, store.Installation{Table: "job"})
}

// New makes a database of the test's own, with jobprogress attached to an empty job table, and returns its URL. It
// goes with the test.
func New(t testing.TB) string {
	t.Helper()
	return create(t, "template "+shared.template)
}

// NewEncoded is like New, with a database of another encoding.
func NewEncoded(t testing.TB, encoding string) string {
	t.Helper()
	url := create(t, "template template0 locale 'C' encoding '"+encoding+"'")
	if err := execute(t.Context(), url, sql.Job); err != nil {
		t.Fatal(err)
	}
	if err := store.Install(t.Context(), url, store.Installation{Table: "job"}); err != nil {
		t.Fatal(err)
	}
	return url
}

// NewEmpty is like New, without a job table.
func NewEmpty(t testing.TB) string { return create(t, "") }

// create makes a database that goes with the test, and returns its URL.
func create(t testing.TB, how string) string {
	t.Helper()
	if shared.server == nil {
		t.Fatal("pgtest: TestMain has no pgtest.Main")
	}
	name := "jobprogress_" + strings.ToLower(rand.Text()[:8])
	if err := execute(t.Context(), shared.server.URL, "create database "+name+" "+how); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { drop(shared.server.URL, name) })
	return WithDatabase(shared.server.URL, name)
}

// Own starts a server for the test alone, which may halt it, and returns it with the URL of a database on it with
// jobprogress attached to an empty job table. It goes with the test.
func Own(t testing.TB, settings ...string) (*Server, string) {
	t.Helper()
	server, err := StartOwn(t.Context(), t.Logf, settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	name, err := CreateInstalled(t.Context(), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return server, WithDatabase(server.URL, name)
}

// WithDatabase is the URL of another database of the same server.
func WithDatabase(serverURL, name string) string {
	u, err := url.Parse(serverURL)
	if err != nil {
		panic(err) // it has been connected to
	}
	u.Path = "/" + name
	return u.String()
}

// WithRole is the URL of the same database for another role, which needs no password if it is trusted or it is set to
// the role's name.
func WithRole(databaseURL, role string) string {
	u, err := url.Parse(databaseURL)
	if err != nil {
		panic(err) // it has been connected to
	}
	u.User = url.UserPassword(role, role)
	return u.String()
}

// With is the URL of the same database with a parameter set.
func With(databaseURL, parameter, value string) string {
	u, err := url.Parse(databaseURL)
	if err != nil {
		panic(err) // it has been connected to
	}
	query := u.Query()
	query.Set(parameter, value)
	u.RawQuery = query.Encode()
	return u.String()
}

func drop(serverURL, name string) {
	execute(context.Background(), serverURL, "drop database if exists "+name+" with (force)")
}

func execute(ctx context.Context, databaseURL, text string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.PgConn().Exec(ctx, text).ReadAll(); err != nil {
		return fmt.Errorf("%.60s…: %w", text, err)
	}
	return nil
}
