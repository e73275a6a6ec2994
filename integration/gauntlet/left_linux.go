package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// belongings are what a process and a service have: what should be the same
// after each round.
type belongings struct {
	fds    map[string]int // open descriptors by what they are, connections of clients apart
	files  []string       // in the service's folders
	rss    uint64         // resident memory of the process
	budget uint64         // what rss may be
	conns  int            // connections of clients
}

// belongingsOf looks at the process that serves.
func (r *rig) belongingsOf(pid int) (belongings, error) {
	b := belongings{fds: make(map[string]int)}
	sockets, err := socketsOf(pid, r.addrs())
	if err != nil {
		return b, err
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return b, err
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if target == os.DevNull && filtered(pid) {
			continue // package sysfault leaves it where a close(2) fails
		}
		if target == r.program()+" (deleted)" {
			continue // dash leaves the script's descriptor, from number 10 on, to its child
		}
		kind, rest, _ := strings.Cut(target, ":")
		switch kind {
		case "socket":
			if s, ok := sockets[strings.Trim(rest, "[]")]; ok {
				b.fds[s]++
			} else {
				b.conns++
			}
		case "pipe":
			b.fds[kind]++
		default:
			b.fds[target]++
		}
	}
	for _, dir := range []string{r.set.Dir, r.set.State} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				b.files = append(b.files, path)
			}
			return err
		})
		if err != nil {
			return b, err
		}
	}
	slices.Sort(b.files)
	b.files = slices.Compact(b.files)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return b, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				return b, err
			}
			b.rss = kb << 10
		}
	}
	return b, nil
}

// more says what b has that is not in base.
func (b belongings) more(base belongings) []string {
	var more []string
	for _, what := range slices.Sorted(maps.Keys(b.fds)) {
		if n, want := b.fds[what], base.fds[what]; n > want {
			more = append(more, fmt.Sprintf("%d descriptors of %s, %d at first", n, what, want))
		}
	}
	for _, file := range b.files {
		if !slices.Contains(base.files, file) {
			more = append(more, "file "+file)
		}
	}
	for _, file := range base.files {
		if !slices.Contains(b.files, file) {
			more = append(more, "no file "+file)
		}
	}
	if b.rss > base.budget {
		more = append(more, fmt.Sprintf("%d MiB of memory, %d MiB at first", b.rss>>20, base.rss>>20))
	}
	return more
}

// socketsOf returns what the sockets in the namespace of a process are, by inode:
// listeners, datagram sockets, and unix sockets that are not clients'.
func socketsOf(pid int, addrs map[string]string) (map[string]string, error) {
	found := make(map[string]string)
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "unix"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			if os.IsNotExist(err) && strings.HasSuffix(table, "6") {
				continue // a kernel without IPv6
			}
			return nil, err
		}
		for line := range bytes.Lines(b) {
			f := strings.Fields(string(line))
			switch {
			case table == "unix" && len(f) >= 7 && f[0] != "Num":
				path := "without a name"
				if len(f) > 7 {
					path = f[7]
				}
				// Flags and type, see proc_pid_net(5).
				if f[3] != "00010000" && f[4] != "0002" && (path == addrs[lnUnix] || path == addrs[lnUnixpacket]) {
					continue // accepted
				}
				found[f[6]] = "unix socket " + path
			case strings.HasPrefix(table, "tcp") && len(f) >= 10 && f[3] == "0A",
				strings.HasPrefix(table, "udp") && len(f) >= 10 && f[0] != "sl":
				found[f[9]] = table + " socket " + f[1]
			}
		}
	}
	return found, nil
}

// descriptors lists the open descriptors of a process.
func descriptors(pid int) []byte {
	var out bytes.Buffer
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		fmt.Fprintln(&out, err)
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil {
			fmt.Fprintln(&out, e.Name(), target)
		}
	}
	return out.Bytes()
}
