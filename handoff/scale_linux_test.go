package handoff_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// sample is the number of listeners to each one that the test asks.
const sample = 100

// listenMany opens n listeners, half of them TCP on as many addresses and half unix
// sockets, and returns the addresses of a sample.
func listenMany(up *handoff.Upgrader, dir string, n int) (map[string]string, error) {
	if up.Generation() == 1 { // a successor has room for what it has received
		if err := fdx.RaiseNoFile(n); err != nil {
			return nil, err
		}
	}
	addrs := make(map[string]string)
	for i := range n {
		network, address := "tcp4", fmt.Sprintf("127.66.%d.%d:0", i/400, 1+i/2%200)
		if i%2 == 0 {
			network, address = "unix", filepath.Join(dir, strconv.Itoa(i))
		}
		ln, err := up.Listen(context.Background(), network, address)
		if err != nil {
			return nil, err
		}
		go echo(up, ln, settings{}) // ends with the listener
		if i%sample < 2 {
			addrs[fmt.Sprintf("%d %s", i, network)] = ln.Addr().String()
		}
	}
	return addrs, nil
}

// TestManySockets passes 10,000 sockets on, twice (1,000 in a short run), while a sample of them is asked.
func TestManySockets(t *testing.T) {
	t.Parallel()
	n := testenv.Times(1000, 10_000)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < uint64(n)+1000 {
		testmain.Skipped()
		t.Skipf("needs a hard RLIMIT_NOFILE of %d, have %d", n+1000, limit.Max)
	}
	s := newService(t, settings{Mode: handoff.Takeover})
	s.startCommand(s.varied(variation{Many: n}))
	s.wait("owner")
	addrs := s.wait("addrs").Addrs
	if len(addrs) != 2*n/sample {
		t.Fatalf("%d addresses, want %d", len(addrs), 2*n/sample)
	}
	check := func(want uint64) {
		t.Helper()
		for id, addr := range addrs {
			if gen, err := ask(strings.Fields(id)[1], addr); err != nil || gen != want {
				t.Errorf("%s %s: answered by generation %d, %v, want %d", id, addr, gen, err, want)
			}
		}
	}
	check(1)
	first := map[string]string{"0 unix": addrs["0 unix"], "1 tcp4": addrs["1 tcp4"]}
	l := newLoad(t, s.set.Dir, first)
	for gen := uint64(2); gen <= 3; gen++ {
		m := s.upgrade()
		if m.Report.Sockets != n {
			t.Errorf("%d sockets were passed on, want %d", m.Report.Sockets, n)
		}
		t.Logf("transfer took %v, warming up %v, all %v", m.Report.Durations.Transfer, m.Report.Durations.Warming, m.Report.Durations.Total)
		s.wait("exit")
		check(gen)
		if now := s.waitFor("addrs", func(m message) bool { return m.Kind == "addrs" && m.Generation == gen }); !mapsEqual(now.Addrs, addrs) {
			t.Errorf("generation %d listens at %v, want %v", gen, now.Addrs, addrs)
		}
	}
	l.run(10)
	l.stop()
	s.stop()
	for i := 0; i < n; i += 2 {
		if _, err := os.Lstat(filepath.Join(s.set.Dir, strconv.Itoa(i))); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("unix socket %d after the end: %v, want none", i, err)
		}
	}
}

func mapsEqual(a, b map[string]string) bool { return fmt.Sprint(a) == fmt.Sprint(b) } // fmt sorts keys

// limited writes a script that runs this program with a limit of descriptors.
func limited(t *testing.T, ulimit string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return testenv.Script(t, fmt.Sprintf("%s || exit 1\nexec '%s' \"$@\"\n", ulimit, exe))
}

// TestShortLimit starts a successor that may have fewer descriptors than it is
// to get.
func TestShortLimit(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, ulimit string) *service {
		s := newService(t, settings{Mode: handoff.Takeover})
		s.startCommand(s.varied(variation{Many: 400, Executable: limited(t, ulimit)}))
		s.wait("owner")
		return s
	}
	t.Run("hard", func(t *testing.T) {
		t.Parallel()
		s := start(t, "ulimit -Sn 100 && ulimit -Hn 200")
		addrs := s.wait("addrs").Addrs
		mustAnswer(t, addrs["1 tcp4"], 1)
		before := len(openFiles(t, s.pid()))
		m := s.mustFail("RLIMIT_NOFILE", "200", "ulimit -n")
		if !slices.Contains(m.Is, "ErrTransfer") && !slices.Contains(m.Is, "ErrAborted") {
			t.Errorf("upgrade: %v %s, want ErrTransfer or ErrAborted", m.Is, m.Err)
		}
		// A process that was started by hand reports the result of New.
		o := newService(t, s.set)
		cmd := o.varied(variation{Many: 400})
		cmd.Path = limited(t, "ulimit -Sn 100 && ulimit -Hn 200")
		o.startCommand(cmd)
		if m := o.wait("new"); !slices.Equal(m.Is, []string{"ErrTransfer"}) || !strings.Contains(m.Err, "RLIMIT_NOFILE") {
			t.Errorf("the successor's New: %v %s, want ErrTransfer", m.Is, m.Err)
		}
		for id, addr := range addrs {
			if gen, err := ask(strings.Fields(id)[1], addr); err != nil || gen != 1 {
				t.Errorf("%s: generation %d, %v, want 1", id, gen, err)
			}
		}
		eventually(t, "the predecessor's descriptors are as before", func() bool { return len(openFiles(t, s.pid())) <= before })
		s.stop()
	})
	t.Run("soft", func(t *testing.T) {
		t.Parallel()
		s := start(t, "ulimit -Sn 100 && ulimit -Hn 1500")
		for range 2 {
			s.mustCommit()
		}
		s.stop()
	})
}

// chunk is what states are written in.
const chunk = 1 << 20

// stateOf writes the state blob of a name, which is size bytes.
func stateOf(w io.Writer, name string, size int) error {
	piece := bytes.Repeat([]byte(name+" "), min(chunk, size)/(len(name)+1)+1)[:min(chunk, size)]
	for left := size; left > 0; left -= len(piece) {
		if _, err := w.Write(piece[:min(left, len(piece))]); err != nil {
			return err
		}
	}
	return nil
}

// passStates compares the state blobs of the predecessor with what they should
// be, and provides the same.
func passStates(up *handoff.Upgrader, v variation) error {
	for i := range v.States {
		name := "state " + strconv.Itoa(i)
		if up.Generation() > 1 {
			f, err := up.State(name)
			if err != nil {
				return err
			}
			if err := errors.Join(checkState(f, name, v), f.Close()); err != nil {
				return err
			}
		}
		up.ProvideState(name, func(_ context.Context, w io.Writer) error { return stateOf(w, name, v.StateSize) })
	}
	if up.Generation() > 1 {
		say(message{Kind: "states"})
	}
	return nil
}

func checkState(f *os.File, name string, v variation) error {
	fi, err := f.Stat()
	if err != nil || fi.Size() != int64(v.StateSize) {
		return fmt.Errorf("%s has %d bytes, want %d: %w", name, fi.Size(), v.StateSize, err)
	}
	if v.Unchecked {
		return nil
	}
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(stateOf(w, name, v.StateSize)) }() // ends with the reader
	defer r.Close()
	want, got := make([]byte, min(chunk, v.StateSize+1)), make([]byte, min(chunk, v.StateSize+1))
	for {
		n, err := io.ReadFull(r, want)
		m, _ := io.ReadFull(f, got[:n]) // compared below
		if !bytes.Equal(want[:n], got[:m]) {
			return fmt.Errorf("%s holds something else", name)
		}
		if err != nil {
			return nil
		}
	}
}

// TestStates passes on many state blobs, and a large one.
func TestStates(t *testing.T) {
	for name, v := range map[string]variation{
		"300":   {States: 300, StateSize: 1000},
		"large": {States: 1, StateSize: testenv.Times(8, 64) << 20},
		"empty": {States: 2},
	} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, mode handoff.Mode) {
				s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}})
				s.startCommand(s.varied(v))
				s.wait("owner")
				for range 2 {
					if m := s.upgrade(); m.Report.States != v.States {
						t.Errorf("%d state blobs were passed on, want %d", m.Report.States, v.States)
					}
					s.wait("states")
					s.wait("exit")
				}
				s.stop()
			})
		})
	}
}
