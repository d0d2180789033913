package internal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// readmes are all of the repository, by path from its root.
func readmes(t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == ".git" || entry.Name() == "dist") {
			return fs.SkipDir
		}
		if entry.Name() == "README.md" {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			found[path] = string(text)
		}
		return nil
	})
	if err != nil || len(found) < 5 {
		t.Fatalf("%d READMEs found, %v", len(found), err)
	}
	return found
}

var (
	fenced   = regexp.MustCompile("(?ms)^```.*?^```$")
	link     = regexp.MustCompile(`\]\(([^)]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notInURL = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchor is how GitHub links to a heading.
func anchor(heading string) string {
	return strings.ReplaceAll(notInURL.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

func TestREADMEsLinkToWhatIsThere(t *testing.T) {
	all := readmes(t)
	for path, text := range all {
		for _, found := range link.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			file, part, _ := strings.Cut(found[1], "#")
			if strings.Contains(file, "://") {
				continue
			}
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", path, found[1], err)
			}
			if part == "" {
				continue
			}
			known := false
			for _, h := range heading.FindAllStringSubmatch(all[target], -1) {
				known = known || anchor(h[1]) == part
			}
			if !known {
				t.Errorf("%s links to %s, and there is no such heading", path, found[1])
			}
		}
	}
}

// A sentence that a stranger must read twice is too long.
func TestREADMESaysItInShortSentences(t *testing.T) {
	const most = 30
	text := fenced.ReplaceAllString(readmes(t)["../README.md"], "")
	for _, paragraph := range regexp.MustCompile(`\n\n|\n(?:- |\|  )`).Split(text, -1) {
		if strings.HasPrefix(paragraph, "|") {
			continue // a table
		}
		for _, sentence := range regexp.MustCompile(`[.!?](?:\*\*)?\s`).Split(paragraph+" ", -1) {
			if n := len(strings.Fields(sentence)); n > most {
				t.Errorf("a sentence of %d words: %s", n, sentence)
			}
		}
	}
	if lines := strings.Count(readmes(t)["../README.md"], "\n"); lines > 220 {
		t.Errorf("it has %d lines", lines)
	}
}

// What it says to type is there. cmd/jobprogress has a test that runs the commands of the program.
func TestREADMEHasTargetsOfTheMakefile(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile("(?m)(?:^|`)make ([a-z-]+)").FindAllStringSubmatch(readmes(t)["../README.md"], -1)
	if len(asked) < 5 {
		t.Errorf("it asks for %q only", asked)
	}
	for _, target := range asked {
		if !regexp.MustCompile("(?m)^" + target[1] + ":").Match(makefile) {
			t.Errorf("there is no make %s", target[1])
		}
	}
}
