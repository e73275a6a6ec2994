package policy_test

import (
	"bytes"
	"fmt"
	"regexp"
)

// words: nothing names a folder of somebody's machine. Tests and examples use
// folders of their own.
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
