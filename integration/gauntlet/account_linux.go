package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// account writes what is known about a failure into files.
func (d *run) account(ctx context.Context, why error) error {
	dir := filepath.Join(d.artifacts, fmt.Sprintf("gauntlet-%v-%d", d.res.Mode, d.seed))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "seed %d, mode %v, round %d\n%v\n\nfindings:\n", d.seed, d.res.Mode, d.rounds, why)
	for _, f := range d.res.Findings {
		fmt.Fprintln(&text, f)
	}
	fmt.Fprintf(&text, "\ndeaths: %+v\noutages: %+v\n\nmessages:\n", d.judge.deaths, d.judge.outages)
	ms := d.received(0)
	for _, m := range ms[max(0, len(ms)-200):] {
		fmt.Fprintf(&text, "%.6f %+v\n", seconds(m.At), m)
	}
	errs := []error{
		os.WriteFile(filepath.Join(dir, "story"), []byte(text.String()), 0o600),
		os.WriteFile(filepath.Join(dir, "sockets"), d.sockets(), 0o600),
	}
	// Their goroutine dumps go to the log.
	pids := d.processes()
	for _, pid := range pids {
		errs = append(errs, os.WriteFile(filepath.Join(dir, fmt.Sprintf("descriptors-%d", pid)), descriptors(pid), 0o600))
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended
		_ = syscall.Kill(pid, syscall.SIGQUIT)
	}
	limit, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = eventually(limit, func() bool { return !slices.ContainsFunc(pids, running) }) // whatever exists by then
	errs = append(errs, copyFile(filepath.Join(dir, "log"), d.log.Name()))
	d.res.Account = dir
	return errors.Join(errs...)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func total(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}
