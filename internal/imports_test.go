package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// knows is the architecture: which package may import which others of the project. What is missing here is not
// allowed. Only the commands have seen them all.
var knows = map[string][]string{
	"sql":                     {},
	"internal/job":            {},
	"internal/sse":            {},
	"internal/auth":           {},
	"internal/web":            {},
	"internal/web/testbed":    {"internal/pgtest"},
	"internal/hub":            {"internal/job", "internal/sse"},
	"internal/store":          {"internal/job", "sql"},
	"internal/bus":            {"internal/job", "internal/hub", "internal/store"},
	"internal/stream":         {"internal/job", "internal/sse", "internal/hub", "internal/auth"},
	"internal/httpapi":        {"internal/job", "internal/sse", "internal/hub", "internal/auth", "internal/stream"},
	"internal/pgtest":         {"internal/store", "sql"},
	"internal/pgtest/network": {"internal/pgtest"},
}

// never is what a package must not know of the rest of the world.
var never = map[string][]string{
	"internal/job":     {"net/http", "github.com/jackc/"},
	"internal/sse":     {"net/http", "github.com/jackc/"},
	"internal/hub":     {"net/http", "github.com/jackc/"},
	"internal/stream":  {"github.com/jackc/", "database/sql"},
	"internal/httpapi": {"github.com/jackc/", "database/sql"},
	"internal/bus":     {"net/http"},
	"internal/auth":    {"github.com/jackc/"},
}

func TestImportsGoOneWay(t *testing.T) {
	seen := 0
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == ".git") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		seen++
		folder := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), ".."+string(filepath.Separator)))
		for _, spec := range file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value) // it was parsed
			check(t, folder, imported)
		}
		return nil
	})
	if err != nil || seen < 30 {
		t.Errorf("%d files seen, %v", seen, err)
	}
}

func check(t *testing.T, folder, imported string) {
	for _, prefix := range never[folder] {
		if strings.HasPrefix(imported, prefix) {
			t.Errorf("%s imports %s, which it must know nothing of", folder, imported)
		}
	}
	own, ok := strings.CutPrefix(imported, "jobprogress/")
	if !ok || strings.HasPrefix(folder, "cmd/") {
		return
	}
	allowed, known := knows[folder]
	if !known {
		t.Errorf("%s is not in the table", folder)
	}
	if !slices.Contains(allowed, own) {
		t.Errorf("%s imports %s, which the table does not say", folder, own)
	}
}
