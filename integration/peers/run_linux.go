package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/internal/netlab"
)

// options say what a run does.
type options struct {
	upgrades int
	seconds  time.Duration // for the upgrades
	steady   time.Duration // before them
	full     time.Duration // for the requests per second; 0: not measured
	root     string        // of the servers that are not Go's; "" is the machine
	command  command
	progress func(string)
}

// rest is what follows an upgrade: its surroundings, and some steady state.
const rest = 1300 * time.Millisecond

// upgradeTimeout bounds an upgrade, until the new version has answered.
const upgradeTimeout = time.Minute

// traffic is the load of a network: that on a link has as many clients more as
// an answer takes longer.
func traffic(rtt time.Duration) clientSettings {
	if rtt > 0 {
		return clientSettings{
			Workers: map[kind]int{short: 64, get: 64, post: 64},
			Every:   map[kind]time.Duration{short: 160 * time.Millisecond, get: 80 * time.Millisecond, post: 80 * time.Millisecond},
		}
	}
	return clientSettings{
		Workers: map[kind]int{short: 16, get: 32, post: 32},
		Every:   map[kind]time.Duration{short: 20 * time.Millisecond, get: 40 * time.Millisecond, post: 40 * time.Millisecond},
	}
}

// network is where a run happens.
type network struct {
	rtt            time.Duration
	server, client place
	addr           func() (string, error)
}

func (w network) String() string {
	if w.rtt == 0 {
		return "loopback"
	}
	return fmt.Sprintf("%v round trip", w.rtt)
}

// loopback is the machine's own.
func loopback() network {
	start := (*exec.Cmd).Start
	return network{server: start, client: start, addr: func() (string, error) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		return ln.Addr().String(), ln.Close() // the peer binds it
	}}
}

// linked is two namespaces with a link between them.
func linked(l *netlab.Link) network {
	in := func(n *netlab.Namespace) place {
		return func(cmd *exec.Cmd) (err error) {
			n.Do(func() { err = cmd.Start() })
			return err
		}
	}
	return network{rtt: 2 * l.Delay, server: in(l.Server), client: in(l.Client), addr: func() (string, error) {
		return net.JoinHostPort(netlab.ServerAddrs[0].String(), "8080"), nil
	}}
}

// keeper is a keeper process, from the driver's side.
type keeper struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	log bytes.Buffer
}

func startKeeper(set keeperSettings, command command, at place) (*keeper, error) {
	b, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	k := &keeper{cmd: command("keeper", string(b))}
	if set.Root != "" {
		k.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	k.cmd.Stderr = &k.log
	if k.in, err = k.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	k.out = bufio.NewReader(out)
	if err := at(k.cmd); err != nil {
		return nil, err
	}
	if _, err := k.receive("started"); err != nil {
		return nil, errors.Join(err, k.stop())
	}
	return k, nil
}

var errKeeper = errors.New("the peer does not serve")

func (k *keeper) receive(kind string) (m keeperMessage, err error) {
	line, err := k.out.ReadBytes('\n')
	if err != nil {
		return m, errKeeper
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, err
	}
	if m.Kind != kind {
		return m, fmt.Errorf("keeper: %q, want %q", m.Kind, kind)
	}
	if m.Err != "" {
		return m, errors.New(m.Err)
	}
	return m, nil
}

// upgrade returns when the peer has been replaced, as far as a process can tell.
func (k *keeper) upgrade(version uint32) (keeperMessage, error) {
	if _, err := fmt.Fprintln(k.in, version); err != nil {
		return keeperMessage{}, err
	}
	return k.receive("upgraded")
}

// stop ends the peer. All its waits have bounds.
func (k *keeper) stop() error {
	_ = k.in.Close() // it reads until then
	if err := k.cmd.Wait(); err != nil {
		return fmt.Errorf("keeper: %w: %s", err, k.log.String())
	}
	return nil
}

// run measures a peer on a network.
func (o *options) run(ctx context.Context, p *peer, on network) *row {
	r := &row{Peer: p.name, What: p.what, How: p.how, RTT: on.rtt.Seconds() * 1000}
	root := ""
	if p.program != "" {
		root = o.root
		if _, err := lookUp(root, p.program); err != nil {
			r.Error = "not measured: " + err.Error()
			return r
		}
	}
	if err := o.measure(ctx, p, on, root, r); err != nil {
		r.Error = err.Error()
	}
	return r
}

func (o *options) measure(ctx context.Context, p *peer, on network, root string, r *row) (err error) {
	parent := "" // the machine's
	if root != "" {
		parent = filepath.Join(root, "run")
	}
	dir, err := os.MkdirTemp(parent, "baton")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, logTail(dir))
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err := os.Chmod(dir, 0o755); err != nil { // workers have other users
		return err
	}
	addr, err := on.addr()
	if err != nil {
		return err
	}
	o.progress(fmt.Sprintf("%s, %v: starts", p.name, on))
	k, err := startKeeper(keeperSettings{Peer: p.name, Addr: addr, Dir: dir, Root: root}, o.command, on.server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.stop()) }()
	if o.full > 0 && on.rtt == 0 {
		o.progress(fmt.Sprintf("%s, %v: requests per second", p.name, on))
		if r.PerSecond, err = o.fullSpeed(ctx, addr, on); err != nil {
			return err
		}
	}
	set := traffic(on.rtt)
	set.Addr, set.File = addr, filepath.Join(dir, "records")
	c, err := startClients(set, o.command, on.client)
	if err != nil {
		return err
	}
	began := now()
	m := watchMemory(k.cmd.Process.Pid)
	var events []event
	err = o.replace(ctx, p, on, k, c, m, &events)
	r.MemoryPeak, r.MemorySteady = m.end()
	if err := errors.Join(err, c.stop()); err != nil {
		return err
	}
	r.Sample = c.latest().Sample
	records, err := readRecords(set.File)
	if err != nil {
		return err
	}
	return r.evaluate(records, began+500*time.Millisecond, events)
}

// replace upgrades the peer as often as there is time for.
func (o *options) replace(ctx context.Context, p *peer, on network, k *keeper, c *clientProcess, m *memory, events *[]event) error {
	if err := within(ctx, upgradeTimeout, errNoAnswer, func(ctx context.Context) error {
		return c.wait(ctx, func(m clientMessage) bool { return m.Newest > 0 })
	}); err != nil {
		return fmt.Errorf("%w (%s)", err, c.latest().Sample)
	}
	if err := sleep(ctx, o.steady); err != nil {
		return err
	}
	m.steadyState()
	began := time.Now()
	for version := uint32(2); int(version) < o.upgrades+2 && (version == 2 || time.Since(began) < o.seconds); version++ {
		h := c.latest()
		o.progress(fmt.Sprintf("%s, %v: upgrade %d of %d, %d requests, %d failed", p.name, on, version-1, o.upgrades, h.Requests, h.Failed))
		done, err := k.upgrade(version)
		if err != nil {
			return fmt.Errorf("upgrade %d: %w", version-1, err)
		}
		if err := within(ctx, upgradeTimeout, errNoUpgrade, func(ctx context.Context) error {
			return c.wait(ctx, func(m clientMessage) bool { return m.Newest >= version })
		}); err != nil {
			return fmt.Errorf("upgrade %d: %w (%s)", version-1, err, c.latest().Sample)
		}
		*events = append(*events, event{Version: version, Trigger: done.Trigger})
		if err := sleep(ctx, rest); err != nil {
			return err
		}
	}
	return nil
}

var errNoAnswer = errors.New("no client gets an answer")

// within calls f with a context that ends with this cause.
func within(ctx context.Context, limit time.Duration, cause error, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, cause)
	defer cancel()
	return f(ctx)
}

// fullSpeed returns how many keep-alive GETs without pause are served a second.
func (o *options) fullSpeed(ctx context.Context, addr string, on network) (float64, error) {
	c, err := startClients(clientSettings{Addr: addr, Workers: map[kind]int{get: 32}, For: o.full}, o.command, on.client)
	if err != nil {
		return 0, err
	}
	err = c.wait(ctx, func(m clientMessage) bool { return m.Last })
	if err := errors.Join(err, c.stop()); err != nil {
		return 0, err
	}
	return float64(c.latest().Requests) / o.full.Seconds(), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// memory watches what the processes below one take.
type memory struct {
	keeper int
	stop   chan struct{}
	wg     sync.WaitGroup

	mu           sync.Mutex
	peak, steady uint64
}

func watchMemory(keeper int) *memory {
	m := &memory{keeper: keeper, stop: make(chan struct{})}
	m.wg.Go(func() { // ends with stop
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				now := pss(descendants(keeper))
				m.mu.Lock()
				m.peak = max(m.peak, now)
				m.mu.Unlock()
			case <-m.stop:
				return
			}
		}
	})
	return m
}

// steadyState notes the peak so far as that of the steady state.
func (m *memory) steadyState() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steady, m.peak = m.peak, 0
}

func (m *memory) end() (peak, steady uint64) {
	close(m.stop)
	m.wg.Wait()
	return m.peak, m.steady
}
