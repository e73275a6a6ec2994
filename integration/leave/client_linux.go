package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// workers is the number of connections of each client.
const workers = 16

// A kind of client.
type kind struct {
	name    string
	command func(url, addr string) (*exec.Cmd, error)
	// count reads in its output, with standard error at the end, how many requests were answered, how many failed, and how
	// many of these the service has refused by GOAWAY.
	count func(out []byte) (answered, failed, refused uint64, err error)
}

func program(name string, args ...string) func(url, addr string) (*exec.Cmd, error) {
	return func(url, _ string) (*exec.Cmd, error) {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("%w: apt-get install apache2-utils wrk nghttp2-client", err)
		}
		return exec.Command(path, append(args, url)...), nil
	}
}

// counted returns a count that adds what the groups of two expressions find. The first
// must be there; without the second nothing has failed.
func counted(answered, failed string) func([]byte) (uint64, uint64, uint64, error) {
	sum := func(expr string, out []byte) (n uint64, found bool) {
		m := regexp.MustCompile(expr).FindSubmatch(out)
		for _, g := range m[min(1, len(m)):] {
			v, _ := strconv.ParseUint(string(g), 10, 64) // digits
			n += v
		}
		return n, m != nil
	}
	return func(out []byte) (uint64, uint64, uint64, error) {
		n, ok := sum(answered, out)
		if !ok {
			return 0, 0, 0, fmt.Errorf("no count in its output: %s", out)
		}
		bad, _ := sum(failed, out)
		return n, bad, 0, nil
	}
}

func kinds() []kind {
	// ab ends after ten connections that fail.
	ab := counted(`Complete requests:\s+(\d+)|Total of (\d+) requests completed`, `Failed requests:\s+(\d+)|Test aborted after (\d+) failures`)
	c, n := strconv.Itoa(workers), strconv.Itoa(1<<22) // ab has 32 bytes of memory for each
	return []kind{
		{"ab", program("ab", "-r", "-q", "-c", c, "-n", n), ab},
		{"ab -k", program("ab", "-k", "-r", "-q", "-c", c, "-n", n), ab},
		{"wrk", program("wrk", "-t1", "-c"+c, "-d3600s"), counted(`(\d+) requests in`, `Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)},
		{"POST", func(_, addr string) (*exec.Cmd, error) { return self("post", addr), nil }, func(out []byte) (uint64, uint64, uint64, error) {
			var s load.Stats
			err := json.NewDecoder(bytes.NewReader(out)).Decode(&s)
			return s.Connections - s.Failed, s.Failed, 0, err
		}},
		{"h2load", func(_, addr string) (*exec.Cmd, error) {
			if _, err := program("h2load")("", addr); err != nil {
				return nil, err
			}
			return self("h2load", addr), nil
		}, h2Count},
	}
}
