package policy_test

import (
	"bytes"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// maxLines is how long a file of code may be that states no reason.
const maxLines = 400

// stated is how a file says why it is longer.
var stated = regexp.MustCompile(`(?m)^// Longer than ` + strconv.Itoa(maxLines) + ` lines: \S.*$`)

// fileSizes: a file of code, tests apart, is short enough to be read at once, or
// states why not, in a comment that begins as [stated] has it. Nested modules count.
func fileSizes(r *repo) []string {
	allowed := exceptions{}
	broken := make(map[string][]string)
	var complaints []string
	for name, text := range r.texts {
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		lines, says := bytes.Count(text, []byte("\n")), stated.Match(text)
		switch {
		case lines > maxLines && !says:
			broken[name] = append(broken[name], name+": has "+strconv.Itoa(lines)+" lines: split it by subject, or state why not (// Longer than 400 lines: ...)")
		case lines <= maxLines && says:
			complaints = append(complaints, name+": states why it is long, and is not")
		}
	}
	return append(complaints, allowed.check(broken)...)
}
