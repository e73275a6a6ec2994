package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// name is a benchmark's: "handoff.Accept/tcp4".
type name string

// figures are the values of a run, by benchmark and unit.
type figures map[name]map[string][]float64

// parse reads the output of go test -bench and copies it to out.
func parse(in io.Reader, out io.Writer) (figures, error) {
	all := make(figures)
	procs := regexp.MustCompile(`-\d+$`) // GOMAXPROCS, see package testing
	failed, pkg := false, ""
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		if _, err := fmt.Fprintln(out, line); err != nil {
			return nil, err
		}
		if p, ok := strings.CutPrefix(line, "pkg: "); ok {
			pkg = path.Base(p)
		}
		failed = failed || strings.HasPrefix(line, "FAIL") || strings.HasPrefix(line, "--- FAIL")
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(f[1]); err != nil {
			continue // a line of the benchmark's log
		}
		n := name(pkg + "." + strings.TrimPrefix(procs.ReplaceAllString(f[0], ""), "Benchmark"))
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("figure of %s: %w", n, err)
			}
			if all[n] == nil {
				all[n] = make(map[string][]float64)
			}
			all[n][f[i+1]] = append(all[n][f[i+1]], v)
		}
	}
	switch {
	case sc.Err() != nil:
		return nil, sc.Err()
	case failed:
		return nil, errors.New("a benchmark has not ended: see above")
	case len(all) == 0:
		return nil, errors.New("no figures: run go test with -bench")
	}
	return all, nil
}

// median returns the median of a figure, and whether there is one.
func (all figures) median(n name, unit string) (float64, bool) {
	vs := slices.Sorted(slices.Values(all[n][unit]))
	if len(vs) == 0 {
		return 0, false
	}
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2, true
}
