// Package page holds the demo's page: plain HTML, CSS and JavaScript with the browser's own EventSource.
package page

import "embed"

// Files are the page's, index.html first.
//
//go:embed index.html page.css page.js icon.svg
var Files embed.FS
