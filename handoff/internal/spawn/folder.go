package spawn

import (
	"os"
	"path/filepath"
	"strings"
)

// folder returns the working directory of this process, by the path that led there:
// that is $PWD, or a folder in the path of its program. A release script moves a link in
// that path, and the successor then starts in the next release. A process that was given
// neither has the path without links, as getcwd(2) returns it.
func folder(program string) (string, error) {
	dir, err := os.Getwd() // $PWD, if that leads here
	if err != nil || !filepath.IsAbs(program) || dir != resolved(dir) {
		return dir, err
	}
	for above := filepath.Dir(program); above != "/"; above = filepath.Dir(above) {
		if below, ok := strings.CutPrefix(dir+"/", resolved(above)+"/"); ok {
			return filepath.Join(above, below), nil
		}
	}
	return dir, nil
}

// resolved returns path without links, or path itself if nothing is there.
func resolved(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}
