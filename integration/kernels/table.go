package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

func (r *result) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writeTable writes kernels beside tests, topics, and why tests were skipped or
// failed.
func (r *result) writeTable(w io.Writer) error {
	var packages []string
	for _, k := range r.Kernels {
		for _, run := range k.Runs {
			if !slices.Contains(packages, run.Package) {
				packages = append(packages, run.Package)
			}
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprint(t, "passed/failed/skipped")
	for _, k := range r.Kernels {
		fmt.Fprintf(t, "\t%s", k.name())
	}
	fmt.Fprintln(t)
	for _, pkg := range packages {
		fmt.Fprint(t, pkg)
		for _, k := range r.Kernels {
			fmt.Fprintf(t, "\t%s", k.cell(pkg))
		}
		fmt.Fprintln(t)
	}
	fmt.Fprint(t, "seconds")
	for _, k := range r.Kernels {
		fmt.Fprintf(t, "\t%.0f", k.Seconds)
	}
	fmt.Fprint(t, "\n\t\nwhat tests have shown")
	for _, k := range r.Kernels {
		fmt.Fprintf(t, "\t%s", k.name())
	}
	fmt.Fprintln(t)
	for _, tp := range topics() {
		if !slices.ContainsFunc(r.Kernels, func(k *kernelResult) bool { _, ok := k.Topics[tp.name]; return ok }) {
			continue
		}
		fmt.Fprint(t, tp.name)
		for _, k := range r.Kernels {
			if s, ok := k.Topics[tp.name]; ok {
				fmt.Fprintf(t, "\t%v", s)
			} else {
				fmt.Fprint(t, "\t-")
			}
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, k := range r.Kernels {
		k.writeReasons(w)
	}
	return nil
}

func (k *kernelResult) name() string {
	if k.Release == "" {
		return k.Suite
	}
	release, _, _ := strings.Cut(k.Release, "-cloud")
	return release
}

func (k *kernelResult) cell(pkg string) string {
	for _, run := range k.Runs {
		if run.Package == pkg {
			text := fmt.Sprintf("%d/%d/%d", run.Passed, run.Failed, run.Skipped)
			if run.Error != "" || !run.over {
				text += " (!)"
			}
			return text
		}
	}
	return "-"
}

// writeReasons writes what was skipped, and what has failed.
func (k *kernelResult) writeReasons(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n", k.Suite, k.Release)
	if len(k.Absent) > 0 {
		fmt.Fprintf(w, "  without module %s\n", strings.Join(k.Absent, ", "))
	}
	for _, run := range k.Runs {
		for _, reason := range slices.Sorted(maps.Keys(run.Skips)) {
			fmt.Fprintf(w, "  skipped in %s: %s: %s\n", run.Package, names(run.Skips[reason]), reason)
		}
	}
	for _, run := range k.Runs {
		for _, f := range run.Failures {
			fmt.Fprintf(w, "  FAILED in %s: %s\n%s", run.Package, f.Test, indent(f.Output))
		}
		if run.Error != "" {
			fmt.Fprintf(w, "  FAILED: %s: %s\n", run.Package, run.Error)
		}
	}
	if k.Error != "" {
		fmt.Fprintf(w, "  FAILED: %s\n", k.Error)
	}
	if !k.ok() {
		fmt.Fprintf(w, "  all that the tests have said is in %s, the console in %s\n", k.Log, k.Console)
	}
}

// names lists some tests.
func names(all []string) string {
	const most = 3
	if len(all) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    " + strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}

// line is the last line of a run.
func (r *result) line() string {
	var p, f, s int
	for _, k := range r.Kernels {
		for _, run := range k.Runs {
			p, f, s = p+run.Passed, f+run.Failed, s+run.Skipped
		}
	}
	verdict := "ok"
	if !r.ok() {
		verdict = "FAILED"
	}
	return fmt.Sprintf("result: %s kernels=%d passed=%d failed=%d skipped=%d", verdict, len(r.Kernels), p, f, s)
}
