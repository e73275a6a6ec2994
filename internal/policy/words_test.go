package policy_test

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// words: no text names a folder of a machine. Tests and examples use folders of
// their own.
func words(r *repo) []string {
	machine := regexp.MustCompile(`(^|[^\w.])/(work|root|home|Users)/`)
	var complaints []string
	for name, text := range r.texts {
		for i, line := range bytes.Split(text, []byte("\n")) {
			if found := machine.Find(line); found != nil {
				complaints = append(complaints, fmt.Sprintf("%s:%d: names a folder of a machine: %q", name, i+1, line))
			}
		}
	}
	return complaints
}

// vagueExceptions are the files that still have such words. Remove a file when it has
// none.
var vagueExceptions = exceptions{
	"integration/kernels/image_linux.go": "it has the user nobody",
}

// vague: texts name the actor (the predecessor, the kernel, the client). A word for an
// unknown person hides it. Code spans in Markdown may quote such a word.
func vague(r *repo) []string {
	unknown := regexp.MustCompile(`(?i)\b(nobody|somebody|whoever|hears|is[\s/#]+told)\b`)
	span := regexp.MustCompile("`[^`\n]*`")
	found := map[string][]string{}
	for name, text := range r.texts {
		if strings.HasPrefix(name, "internal/policy/") {
			continue
		}
		if strings.HasSuffix(name, ".md") {
			text = span.ReplaceAll(text, nil)
		}
		for _, at := range unknown.FindAllIndex(text, -1) {
			line := 1 + bytes.Count(text[:at[0]], []byte("\n"))
			found[name] = append(found[name], fmt.Sprintf("%s:%d: %q: name the actor", name, line, text[at[0]:at[1]]))
		}
	}
	return vagueExceptions.check(found)
}
