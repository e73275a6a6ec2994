package policy_test

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// documents returns the pages for people, README.md first, with a complaint for each of
// these faults: a link to a file or a heading that does not exist, a Go fragment with a
// line that no example has, a README that is too long. Other tests run the programs and
// commands of the pages.
func documents(r *repo) []string {
	const readmeLines = 150
	var examples strings.Builder
	for name, text := range r.texts {
		if strings.HasPrefix(path.Base(name), "example") && strings.HasSuffix(name, "_test.go") {
			examples.WriteString(squeeze(string(text)))
		}
	}
	var complaints []string
	for _, name := range slices.Sorted(maps.Keys(r.texts)) {
		if path.Ext(name) != ".md" || path.Dir(name) != "." && path.Dir(name) != "docs" {
			continue
		}
		text := string(r.texts[name])
		if n := strings.Count(text, "\n"); name == "README.md" && n > readmeLines {
			complaints = append(complaints, fmt.Sprintf("%s: %d lines, want at most %d", name, n, readmeLines))
		}
		for _, link := range regexp.MustCompile(`\]\(([^) ]*)\)`).FindAllStringSubmatch(text, -1) {
			if !r.leads(name, link[1]) {
				complaints = append(complaints, name+": link to "+link[1]+", which does not exist")
			}
		}
		for _, block := range strings.Split(text, "```go\n")[1:] {
			block, _, _ = strings.Cut(block, "```")
			if strings.HasPrefix(block, "package main\n") {
				continue // a test builds and runs it
			}
			for line := range strings.Lines(block) {
				if s := squeeze(line); s != "" && !strings.Contains(examples.String(), s) {
					complaints = append(complaints, name+": no example has the line "+strings.TrimSpace(line))
				}
			}
		}
	}
	return complaints
}

// leads reports whether a link of a page leads to a file, or a heading of one.
func (r *repo) leads(page, link string) bool {
	if strings.Contains(link, "://") {
		return true
	}
	file, anchor, _ := strings.Cut(link, "#")
	target := page
	if file != "" {
		target = path.Join(path.Dir(page), file)
	}
	text, ok := r.texts[target]
	if !ok {
		inside := strings.TrimSuffix(target, "/") + "/"
		return anchor == "" && slices.ContainsFunc(slices.Collect(maps.Keys(r.texts)), func(name string) bool { return strings.HasPrefix(name, inside) })
	}
	if anchor == "" {
		return true
	}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(text), -1) {
		name := regexp.MustCompile(`[^a-z0-9_ -]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		if strings.ReplaceAll(name, " ", "-") == anchor {
			return true
		}
	}
	return false
}

// squeeze takes out white space, which gofmt sets by what surrounds a line.
func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }
