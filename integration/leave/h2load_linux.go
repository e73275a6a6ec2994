package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"strconv"
	"syscall"

	"github.com/seed-11c92bf9/baton/integration/internal/witness"
)

// h2load never connects again: a connection that ends leaves its share of the requests
// unsent, and h2load counts these as failed. So it runs in rounds, which end early at a
// handover. What it has sent is counted by a witness; what was answered, by h2load.
const (
	h2Clients  = 8
	h2Streams  = 4    // of each at once
	h2Requests = 4000 // of a round
	h2Silence  = "30" // seconds without an answer, until h2load gives up
)

// h2Counts are the rounds of h2load.
type h2Counts struct {
	witness.Count
	Rounds    int `json:"rounds"`
	Succeeded int `json:"succeeded"` // by h2load
	Timeout   int `json:"timeout"`
}

var h2Line = regexp.MustCompile(`requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, \d+ failed, \d+ errored, (\d+) timeout`)

// h2Main is the client of rounds: it runs until SIGINT and writes what was counted.
func h2Main(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	path, err := exec.LookPath("h2load")
	if err != nil {
		return err
	}
	w, err := witness.New(args[0])
	if err != nil {
		return err
	}
	defer w.Close()        // a second time, unless a round fails
	runtime.LockOSThread() // the kernel watches it for Pdeathsig
	var c h2Counts
	for ctx.Err() == nil {
		cmd := exec.Command(path, "-t1", "-c", strconv.Itoa(h2Clients), "-m", strconv.Itoa(h2Streams), "-n", strconv.Itoa(h2Requests), "-N", h2Silence, "http://"+w.Addr()+"/")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // SIGINT is this process's
		out, err := cmd.CombinedOutput()
		m := h2Line.FindSubmatch(out)
		if m == nil {
			return fmt.Errorf("h2load: %w: %s", err, out)
		}
		ok, _ := strconv.Atoi(string(m[1])) // digits
		late, _ := strconv.Atoi(string(m[2]))
		c.Rounds, c.Succeeded, c.Timeout = c.Rounds+1, c.Succeeded+ok, c.Timeout+late
	}
	if c.Count, err = w.Close(); err != nil {
		return err
	}
	say(c)
	return nil
}

// h2Count reads what h2Main writes.
func h2Count(out []byte) (answered, failed, refused uint64, err error) {
	var c h2Counts
	if err := json.NewDecoder(bytes.NewReader(out)).Decode(&c); err != nil {
		return 0, 0, 0, err
	}
	if c.Answered < c.Succeeded {
		return 0, 0, 0, fmt.Errorf("h2load has counted %d responses, the witness %d", c.Succeeded, c.Answered)
	}
	// A response that h2load does not take for one has failed, too.
	return uint64(c.Succeeded), uint64(c.Sent - c.Succeeded + c.Unused + c.Unreached), uint64(c.Refused), nil
}
