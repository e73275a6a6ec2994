package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keeperSettings configure a keeper.
type keeperSettings struct {
	Peer string
	Addr string
	Dir  string // the peer's own folder
	Root string // "" is the machine itself; Dir is below it
}

// keeperMessage is a line that a keeper writes.
type keeperMessage struct {
	Kind    string // "started", "upgraded"
	Trigger time.Duration
	Err     string
}

// keeperMain is the keeper: the parent, or the one that takes the orphans, of all
// processes of a peer. It starts the peer, upgrades it to the version that a line
// of its standard input names, and ends it with its standard input.
func keeperMain(args []string) error {
	var set keeperSettings
	if err := json.Unmarshal([]byte(args[0]), &set); err != nil {
		return err
	}
	p, err := peerByName(set.Peer)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_CHILD_SUBREAPER)", err)
	}
	if set.Root != "" {
		if err := enterRoot(set.Root); err != nil {
			return err
		}
	}
	// A terminal signals all its processes: the driver ends this one.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	n := newNest(set)
	defer n.clear()
	if err := n.begin(p); err != nil {
		return err
	}
	n.say(keeperMessage{Kind: "started"})
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var version uint32
		if _, err := fmt.Sscan(in.Text(), &version); err != nil {
			return err
		}
		m := keeperMessage{Kind: "upgraded"}
		if m.Trigger, err = n.replace(p, version); err != nil {
			m.Err = err.Error()
		}
		n.say(m)
	}
	return in.Err()
}

// enterRoot makes what servers need in a root that is a mere folder. The process
// has a mount namespace of its own.
func enterRoot(root string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount(MS_PRIVATE)", err)
	}
	for _, dir := range []string{"proc", "dev"} {
		if err := unix.Mount("/"+dir, filepath.Join(root, dir), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return os.NewSyscallError("mount(MS_BIND) /"+dir, err)
		}
	}
	return nil
}

func (n *nest) say(m keeperMessage) {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", b)
}

// Bounds of the steps of a peer.
const (
	startTimeout = time.Minute
	leaveTimeout = 15 * time.Second // of the old processes; no upgrade waits longer
	stopTimeout  = 5 * time.Second
)

// begin starts version 1, and waits until it answers.
func (n *nest) begin(p *peer) error {
	if err := p.write(n, 1); err != nil {
		return err
	}
	if err := p.start(n); err != nil {
		return err
	}
	tr := &http.Transport{DisableKeepAlives: true}
	c := http.Client{Timeout: time.Second, Transport: tr}
	return n.await(startTimeout, func() error {
		resp, err := c.Get("http://" + n.Addr + "/")
		if err != nil {
			return err
		}
		_ = resp.Body.Close() // not read
		if v := resp.Header.Get("Version"); resp.StatusCode != http.StatusOK || v != "1" {
			return fmt.Errorf("it answers %s, version %q", resp.Status, v)
		}
		return nil
	})
}

// replace upgrades the peer, and waits until the processes that were to leave
// have left. That the new version serves is for the clients to see.
func (n *nest) replace(p *peer, version uint32) (trigger time.Duration, err error) {
	if err := p.write(n, version); err != nil {
		return 0, err
	}
	old := n.processes()
	trigger = now()
	if err := p.upgrade(n); err != nil {
		return trigger, err
	}
	_ = n.await(leaveTimeout, func() error { // they may serve on
		for _, pid := range old {
			if alive(pid) && !p.stays && !(p.mainStays && pid == n.main) {
				return fmt.Errorf("process %d does not leave", pid)
			}
		}
		return nil
	})
	return trigger, nil
}

var errPatience = errors.New("not in time")

// await tries again until f succeeds or time is up.
func (n *nest) await(limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: within %v: %w", errPatience, limit, err)
		}
		time.Sleep(2 * time.Millisecond) // a poll
	}
}

// clear ends whatever is left of the peer: politely, then not.
func (n *nest) clear() {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for _, pid := range n.processes() {
			_ = syscall.Kill(pid, sig) // gone is as good
		}
		err := n.await(stopTimeout, func() error {
			n.reap()
			if left := n.processes(); len(left) > 0 {
				return fmt.Errorf("processes %v are left", left)
			}
			return nil
		})
		if err == nil {
			break
		}
	}
	n.close()
}
