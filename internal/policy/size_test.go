package policy_test

import (
	"bytes"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// maxLines is how long a file of code may be that states no reason, and maxTestLines how
// long a file of tests may be.
const (
	maxLines     = 400
	maxTestLines = 500
)

// stated is how a file says why it is longer.
var stated = regexp.MustCompile(`(?m)^// Longer than ` + strconv.Itoa(maxLines) + ` lines: \S.*$`)

// fileSizes: a file of code is short enough to be read at once, or states why not, in a
// comment that begins as [stated] has it. A file of tests is split. Nested modules count.
func fileSizes(r *repo) []string {
	allowed := exceptions{}
	broken := make(map[string][]string)
	var complaints []string
	for name, text := range r.texts {
		if path.Ext(name) != ".go" {
			continue
		}
		lines, says := bytes.Count(text, []byte("\n")), stated.Match(text)
		if strings.HasSuffix(name, "_test.go") {
			if lines > maxTestLines {
				complaints = append(complaints, name+": has "+strconv.Itoa(lines)+" lines of tests: split it by subject")
			}
			continue
		}
		switch {
		case lines > maxLines && !says:
			broken[name] = append(broken[name], name+": has "+strconv.Itoa(lines)+" lines: split it by subject, or state why not (// Longer than 400 lines: ...)")
		case lines <= maxLines && says:
			complaints = append(complaints, name+": states why it is long, and is not")
		}
	}
	return append(complaints, allowed.check(broken)...)
}
