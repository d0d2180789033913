package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"

	"jobprogress/internal/pgtest"
)

// deadline is for what should take seconds: a PostgreSQL and a browser start.
const deadline = 2 * time.Minute

// built is where the programs are.
var built string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if built, err = os.MkdirTemp("", "jobprogress-demo-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(built)
		if out, err := exec.Command("go", "build", "-o", built, "jobprogress/cmd/demo", "jobprogress/cmd/jobprogress").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// ownOrigin is that of an application of one's own.
const ownOrigin = "http://localhost:5173"

// demo is a running demo, as make demo runs it.
type demo struct {
	t       *testing.T
	page    string // its address
	psql    string // the database's
	curl    string // the line that it prints
	command *exec.Cmd
	stdout  io.Closer
	files   string // where all of its files must be, and none when it has ended
}

// startDemo starts one with a database of its own, or with the one that is named.
func startDemo(t *testing.T, databaseURL string) *demo {
	t.Helper()
	bin := t.TempDir() // processes are known by it
	for _, program := range []string{"demo", "jobprogress"} {
		if err := os.Link(filepath.Join(built, program), filepath.Join(bin, program)); err != nil {
			t.Fatal(err)
		}
	}
	// Not t.TempDir, which nobody else may enter: PostgreSQL runs as another user when we are root.
	dir, err := os.MkdirTemp("", "jobprogress-demo-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	d := &demo{t: t, files: dir}
	d.command = exec.Command(filepath.Join(bin, "demo"), "--addr", "127.0.0.1:0")
	d.command.Env = append(os.Environ(), "TMPDIR="+d.files, "DEMO_ALLOWED_ORIGINS="+ownOrigin, "DEMO_DATABASE_URL="+databaseURL, "DATABASE_URL=postgres://nobody@127.0.0.1:1/application")
	d.command.Stderr = os.Stderr
	stdout, err := d.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.stdout = stdout
	if err := d.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.command.Process.Kill()
		d.command.Wait()
		d.leavesNothing()
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Ctrl-C") {
		line := lines.Text()
		if page, ok := strings.CutPrefix(line, "The page:"); ok {
			d.page = strings.TrimSpace(page)
		}
		if strings.HasPrefix(line, "  curl ") {
			d.curl = strings.TrimSpace(line)
		}
		if url := regexp.MustCompile(`psql '([^']+)'`).FindStringSubmatch(line); url != nil {
			d.psql = url[1]
		}
	}
	if d.page == "" || d.psql == "" || d.curl == "" {
		t.Fatalf("the demo prints no page, curl or psql line: %v", lines.Err())
	}
	go io.Copy(io.Discard, stdout)
	return d
}

func (d *demo) exec(text string, args ...any) {
	d.t.Helper()
	conn, err := pgx.Connect(d.t.Context(), d.psql)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(d.t.Context(), text, args...); err != nil {
		d.t.Fatal(err)
	}
}

func sent(s syscall.Signal) func(*demo) {
	return func(d *demo) { d.command.Process.Signal(s) }
}

// end makes the demo end, and waits for it.
func (d *demo) end(how func(*demo)) error {
	d.t.Helper()
	there := strings.Join(d.left(), "\n")
	for _, part := range []string{"jobprogress serve", "simulate --account " + accounts[0].ID, "simulate --account " + accounts[1].ID} {
		if !strings.Contains(there, part) {
			d.t.Fatalf("%s is not there: %s", part, there)
		}
	}
	how(d)
	ended := make(chan error, 1)
	go func() { ended <- d.command.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(deadline):
		d.t.Fatal("the demo does not end")
		return nil
	}
}

func (d *demo) leavesNothing() {
	d.t.Helper()
	for end := time.Now().Add(deadline); len(d.left()) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatalf("left are %v", d.left())
		}
	}
}

// left lists the command lines of the demo's own processes and of all that it started, as far as the system says, and its
// files.
func (d *demo) left() (found []string) {
	entries, err := os.ReadDir(d.files)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, entry := range entries {
		found = append(found, entry.Name())
	}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is good
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && (strings.Contains(string(line), filepath.Dir(d.command.Path)) || strings.Contains(string(line), d.files)) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// browser starts Chromium: the one that CHROMIUM names, or one that is installed.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"),
	}
	path := os.Getenv("CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"} {
		if path == "" {
			path, _ = exec.LookPath(name)
		}
	}
	if path == "" {
		if os.Getenv("CI") == "" {
			t.Skip("no Chromium here: install it, or name it in CHROMIUM")
		}
		t.Fatal("no Chromium here: install it, or name it in CHROMIUM")
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), append(options, chromedp.ExecPath(path))...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		chromedp.Cancel(ctx)
		cancel()
	})
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return ctx
}

// becomes waits until a JavaScript expression is true, also on the next page.
func becomes(t *testing.T, ctx context.Context, expression string) {
	t.Helper()
	for end := time.Now().Add(deadline); ; time.Sleep(20 * time.Millisecond) {
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		if err == nil && is {
			return
		}
		if time.Now().After(end) {
			text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
			t.Fatalf("not so: %s: %v\n%s", expression, err, text)
		}
	}
}

func TestDemoInABrowser(t *testing.T) {
	d := startDemo(t, "")
	ctx := browser(t)
	if err := chromedp.Listen(ctx, func(event any) {
		if e, ok := event.(*runtime.EventExceptionThrown); ok {
			t.Errorf("the page throws %s", e.ExceptionDetails.Text)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.Navigate(d.page)); err != nil {
		t.Fatal(err)
	}

	t.Run("simulated jobs are shown live", func(t *testing.T) {
		becomes(t, ctx, `document.querySelector('#connection').dataset.state === 'open'`)
		becomes(t, ctx, `document.querySelectorAll('#running .items [data-status=in_progress]').length >= 2`)
		becomes(t, ctx, `[...document.querySelectorAll('#running .done')].some((e) => parseInt(e.textContent) > 3)`)
	})

	card := "document.querySelector('#job-" + byHand + "')"
	t.Run("a row changed by hand moves its bar", func(t *testing.T) {
		becomes(t, ctx, card+`.querySelector('.done').textContent === '0 of 10'`)
		d.exec(`update job set progress = '{"total": 10, "done": 4, "succeeded": 3, "failed": 1}' where id = $1`, byHand)
		becomes(t, ctx, card+`.querySelector('.done').textContent === '4 of 10' && `+card+`.querySelector('.failed').style.width === '10%'`)
		becomes(t, ctx, card+`.querySelector('.percent').textContent === '40 %' && / s$/.test(`+card+`.querySelector('.duration').textContent)`)
		d.exec(`select jobprogress.item($1, 's1', 'song', 'in_progress', '<img src=x onerror=alert(1)></script>')`, byHand)
		becomes(t, ctx, card+`.querySelector('.items').textContent === '<img src=x onerror=alert(1)></script>'`)
	})

	t.Run("EventSource reads to the end and stops by itself", func(t *testing.T) {
		script := fmt.Sprintf(`
			window.received = [];
			window.source = new EventSource('/api/jobs/%s/progress');
			source.onmessage = (e) => received.push(JSON.parse(e.data));
			window.ends = 0;
			source.onerror = () => ends++;
			true`, byHand)
		if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script)); err != nil {
			t.Fatal(err)
		}
		becomes(t, ctx, `received.length >= 3`)
		d.exec(`update job set progress = '{"total": 10, "done": 10, "succeeded": 8, "failed": 2}', error = 'two songs were lost', status = 'failed' where id = $1`, byHand)
		becomes(t, ctx, `source.readyState === EventSource.CLOSED`)
		// The end of the stream, then the 204.
		becomes(t, ctx, `ends === 2`)
		becomes(t, ctx, `JSON.stringify(received.slice(-3)) === '[{"type":"progress","done":10,"total":10,"succeeded":8,"failed":2},{"type":"error","message":"two songs were lost"},{"type":"status","status":"failed"}]'`)
		becomes(t, ctx, card+`.parentElement.id === 'ended' && `+card+`.dataset.status === 'failed' && `+card+`.querySelector('.error').textContent === 'two songs were lost'`)
	})

	t.Run("the line that moves a job starts it again, and ends it", func(t *testing.T) {
		d.exec(`update job set status = 'running', progress = '{"total": 10, "done": 9}', error = null where id = $1`, byHand)
		d.exec(moveByHand)
		becomes(t, ctx, card+`.dataset.status === 'completed' && `+card+`.querySelector('.done').textContent === '10 of 10'`)
		d.exec(moveByHand)
		becomes(t, ctx, card+`.dataset.status === 'running' && `+card+`.querySelector('.done').textContent === '1 of 10'`)
	})

	t.Run("a page of one's own needs no credentials", func(t *testing.T) {
		request, err := http.NewRequest(http.MethodGet, d.page+"api/jobs/"+byHand, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Origin", ownOrigin)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if allowed := response.Header.Get("Access-Control-Allow-Origin"); response.StatusCode != http.StatusOK || allowed != ownOrigin {
			t.Errorf("%s, allowed is %q", response.Status, allowed)
		}
	})

	t.Run("nothing is loaded from elsewhere", func(t *testing.T) {
		loaded, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](`performance.getEntriesByType('resource').map((e) => new URL(e.name).origin)`))
		if err != nil || len(loaded) == 0 {
			t.Fatalf("%d resources, %v", len(loaded), err)
		}
		for _, origin := range loaded {
			if origin+"/" != d.page {
				t.Errorf("something came from %s", origin)
			}
		}
	})

	t.Run("the other account has other jobs", func(t *testing.T) {
		if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS("nav a:last-child"))); err != nil {
			t.Fatal(err)
		}
		becomes(t, ctx, `document.querySelector('nav a[aria-current]')?.textContent === 'Ben' && document.querySelectorAll('#running .job').length > 0`)
		becomes(t, ctx, card+` === null`)
	})

	t.Run("the curl line works when pasted", func(t *testing.T) {
		d.exec(`update job set status = 'failed' where id = $1`, byHand) // or the stream would not end
		out, err := exec.Command("sh", "-c", d.curl+" --silent --max-time 20").Output()
		if err != nil || !strings.Contains(string(out), `{"type":"status","status":"failed"}`) {
			t.Errorf("%v\n%s", err, out)
		}
	})

	t.Run("Ctrl-C leaves nothing behind", func(t *testing.T) {
		if err := d.end(sent(syscall.SIGINT)); err != nil {
			t.Errorf("the demo ends with %v", err)
		}
		d.leavesNothing()
		if _, err := http.Get(d.page); err == nil {
			t.Error("the page is still served")
		}
	})
}

func TestDemoThatIsEndedOtherwise(t *testing.T) {
	server, err := pgtest.StartOwn(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	for _, c := range []struct {
		name, databaseURL string
		how               func(d *demo)
	}{
		{"its terminal is closed", "", func(d *demo) { d.stdout.Close() }},
		{"its terminal says so", "", sent(syscall.SIGHUP)},
		{"it is killed", "", sent(syscall.SIGKILL)},
		{"it is killed, and its database goes on", server.URL, sent(syscall.SIGKILL)},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := startDemo(t, c.databaseURL)
			d.end(c.how)
			d.leavesNothing()
		})
	}
}
