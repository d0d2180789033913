// Package web serves the demo's page: plain HTML, CSS and JavaScript, with the core of the hook as its way to the
// streams.
package web

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/evanw/esbuild/pkg/api"
)

// The core is what needs neither React nor anything else.
//
//go:embed page hook/src/protocol.ts hook/src/connection.ts hook/src/feed.ts hook/src/watch.ts hook/src/tabs.ts
var files embed.FS

// Page is a handler of the page, index.html first. The TypeScript of the core is at /hook/, without its types.
func Page() (http.Handler, error) {
	page, err := fs.Sub(files, "page")
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServerFS(page))
	sources, err := fs.Glob(files, "hook/src/*.ts")
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	for _, source := range sources {
		text, err := files.ReadFile(source)
		if err != nil {
			return nil, fmt.Errorf("page: %w", err)
		}
		result := api.Transform(string(text), api.TransformOptions{Loader: api.LoaderTS, Sourcefile: source})
		if len(result.Errors) > 0 {
			return nil, fmt.Errorf("page: %s: %s", source, result.Errors[0].Text)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(source, "hook/src/"), ".ts") + ".js"
		mux.HandleFunc("/hook/"+name, func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(result.Code))
		})
	}
	return mux, nil
}
