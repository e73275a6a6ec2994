//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// config is what each process of a run knows.
type config struct {
	Way       string // "drain" or "close"
	Network   string
	Address   string
	Drains    int // of each server
	PerDrain  int // connections between two of them, all servers together
	Members   int // of each server
	Clients   int
	Processes int
}

// outcome is what one run came to.
type outcome struct {
	way    string
	drains int
	serverResult
	clientResult
}

func main() {
	if role := os.Getenv("BATON_DRAINS"); role != "" {
		if err := child(role); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		return
	}
	var cfg config
	flag.IntVar(&cfg.Drains, "drains", 2000, "members that leave, in each of the two runs")
	flag.IntVar(&cfg.PerDrain, "per-drain", 160, "connections for each of them, at least")
	flag.IntVar(&cfg.Members, "members", 3, "members of each server process")
	flag.IntVar(&cfg.Clients, "clients", 16, "connections at a time")
	flag.IntVar(&cfg.Processes, "processes", 1, "server processes, which share the drains")
	flag.StringVar(&cfg.Network, "network", "tcp4", "tcp4, tcp6 or tcp (dual-stack)")
	flag.Parse()
	os.Exit(soak(cfg))
}

func soak(cfg config) int {
	if err := namespace(); err != nil {
		fmt.Fprintln(os.Stderr, "network namespace:", err)
		return 1
	}
	migrate, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	fmt.Printf("kernel %s, tcp_migrate_req=%s, servers as uid %d\n", release(), orUnknown(migrate, err), serverUID())
	var runs []outcome
	for _, way := range []string{"drain", "close"} {
		cfg.Way = way
		o, err := run(cfg)
		if err != nil {
			fmt.Fprintln(os.Stderr, way+":", err)
			return 1
		}
		runs = append(runs, o)
	}
	table(os.Stdout, runs)
	return verdict(os.Stdout, runs)
}

// verdict prints the last line, and returns the exit status: 0 if Drain lost
// nothing and the control lost something.
func verdict(w io.Writer, runs []outcome) int {
	drain, control := runs[0], runs[1]
	status := 0
	switch {
	case drain.Lost() > 0:
		fmt.Fprintln(w, "Drain lost connections:", drain.Errors)
		status = 1
	case drain.Odd > 0:
		fmt.Fprintln(w, "reports said that loss was possible, or named another strategy:", drain.Odd)
		status = 1
	case control.Lost() == 0:
		fmt.Fprintln(w, "the control lost nothing, so this run shows nothing: use more drains or more load")
		status = 1
	}
	fmt.Fprintf(w, "result: drains=%d connections=%d lost=%d\n", drain.drains, drain.Connections, drain.Lost())
	return status
}

func table(w io.Writer, runs []outcome) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "way\tleft\tconnections\tlost\thalf-open\taccepted while leaving\tduration p50\tp99\tsettle p50\tp99\tmax\t")
	for _, o := range runs {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%d\t%v\t%v\t%v\t%v\t%v\t\n", o.way, o.drains, o.Connections, o.Lost(), o.HalfOpen, o.Accepted,
			quantile(o.Durations, .5), quantile(o.Durations, .99),
			quantile(o.Settles, .5), quantile(o.Settles, .99), quantile(o.Settles, 1))
	}
	_ = tw.Flush() // a terminal
	for _, o := range runs {
		if o.Lost() > 0 {
			fmt.Fprintf(w, "%s: %v\n", o.way, o.Errors)
		}
	}
}

func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	return ds[min(len(ds)-1, int(q*float64(len(ds))))].Round(10 * time.Microsecond)
}

// run starts servers and clients and waits for them.
func run(cfg config) (o outcome, err error) {
	cfg.Address = "127.66.31.1:0"
	switch cfg.Network {
	case "tcp6":
		cfg.Address = "[::1]:0"
	case "tcp":
		cfg.Address = "[::]:0"
	}
	total := cfg.Drains
	cfg.Drains /= cfg.Processes
	o = outcome{way: cfg.Way, drains: cfg.Drains * cfg.Processes}
	if o.drains == 0 {
		return o, fmt.Errorf("%d drains for %d processes", total, cfg.Processes)
	}
	var servers []*proc
	defer func() {
		for _, p := range servers {
			p.kill()
		}
	}()
	for range cfg.Processes {
		p, err := start("server", cfg)
		if err != nil {
			return o, err
		}
		servers = append(servers, p)
		if cfg.Address, err = p.line(); err != nil {
			return o, fmt.Errorf("address of a server: %w", err)
		}
	}
	clients, err := start("client", cfg)
	if err != nil {
		return o, err
	}
	defer clients.kill()
	for _, p := range servers {
		if _, err := io.WriteString(p.in, "go\n"); err != nil {
			return o, err
		}
	}
	for _, p := range servers {
		line, err := p.line()
		if err != nil {
			return o, fmt.Errorf("result of a server: %w", err)
		}
		var r serverResult
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return o, err
		}
		o.add(r)
	}
	_ = clients.in.Close() // the sign to stop, while the servers still serve
	line, err := clients.line()
	if err != nil {
		return o, fmt.Errorf("result of the clients: %w", err)
	}
	if err := json.Unmarshal([]byte(line), &o.clientResult); err != nil {
		return o, err
	}
	for _, p := range append(servers, clients) {
		_ = p.in.Close() // may be closed already
		if err := p.cmd.Wait(); err != nil {
			return o, err
		}
	}
	return o, nil
}

// proc is a child process.
type proc struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(role string, cfg config) (*proc, error) {
	arg, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	// By this name another user can execute a binary in a private folder.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BATON_DRAINS="+role, "BATON_DRAINS_CONFIG="+string(arg))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid := serverUID(); uid != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &proc{cmd: cmd, in: in, out: bufio.NewReader(out)}, nil
}

func (p *proc) line() (string, error) {
	s, err := p.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

func (p *proc) kill() {
	_ = p.cmd.Process.Kill() // may have ended
	_ = p.cmd.Wait()         // likewise
}

func child(role string) error {
	var cfg config
	if err := json.Unmarshal([]byte(os.Getenv("BATON_DRAINS_CONFIG")), &cfg); err != nil {
		return err
	}
	switch role {
	case "server":
		return serve(cfg, os.Stdin, os.Stdout)
	case "client":
		return load(cfg, os.Stdin, os.Stdout)
	}
	return errors.New("unknown role")
}

// namespace moves this process, if it's root, into a network namespace of its
// own. The thread stays locked, for children get the namespace of the thread
// that starts them; main ends on it.
func namespace() error {
	if os.Getuid() != 0 {
		return nil
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return os.NewSyscallError("ioctl(SIOCSIFFLAGS)", err)
	}
	return os.WriteFile("/proc/sys/net/ipv4/tcp_migrate_req", []byte("0"), 0)
}

func serverUID() int {
	if uid := os.Getuid(); uid != 0 {
		return uid
	}
	return 65534
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func orUnknown(b []byte, err error) string {
	if err != nil {
		return strconv.Quote(err.Error())
	}
	return strings.TrimSpace(string(b))
}
