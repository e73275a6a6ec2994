package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// row is what one way to run and upgrade a service has shown.
type row struct {
	Name     string `json:"name"`
	Upgrades int    `json:"upgrades"`
	Requests uint64 `json:"requests"`
	Failed   uint64 `json:"failed"`
	Seen     string `json:"seen"`              // in words
	Problem  string `json:"problem,omitempty"` // why it is not what was promised
}

// result is what was seen.
type result struct {
	Podman   string `json:"podman"` // its version
	Rows     []row  `json:"rows"`
	Upgrades int    `json:"upgrades"`
	Requests uint64 `json:"requests"`
	Failed   uint64 `json:"failed"`
}

func (r *result) add(one row) {
	r.Rows = append(r.Rows, one)
	r.Upgrades += one.Upgrades
	r.Requests += one.Requests
	r.Failed += one.Failed
}

// good reports whether each row is what was promised.
func (r *result) good() bool {
	for _, one := range r.Rows {
		if one.Problem != "" {
			return false
		}
	}
	return r.Failed == 0 && r.Upgrades > 0 && r.Requests > 0
}

func (r *result) line() string {
	return fmt.Sprintf("result: upgrades=%d requests=%d failed=%d", r.Upgrades, r.Requests, r.Failed)
}

func (r *result) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

func (r *result) writeTable(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "CONTAINERS\tUPGRADES\tREQUESTS\tFAILED\tSEEN")
	for _, one := range r.Rows {
		seen := one.Seen
		if one.Problem != "" {
			seen = "PROBLEM: " + one.Problem
		}
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%s\n", one.Name, one.Upgrades, one.Requests, one.Failed, seen)
	}
	return tw.Flush()
}
