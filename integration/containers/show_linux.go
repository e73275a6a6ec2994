package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
)

// runtimeDir is the folder of the documentation's pods on a node.
const runtimeDir = "/run/baton"

// patience bounds each step of a row.
const patience = time.Minute

// A way is one way to run and upgrade a service.
type way struct {
	name string
	run  func(s *stage) (seen string, err error)
}

func ways() []way {
	return []way{
		{"takeover", func(s *stage) (string, error) { return s.line("takeover") }},
		{"drain", func(s *stage) (string, error) { return s.line("drain") }},
		{"takeover, read-only root", func(s *stage) (string, error) { return s.line("takeover", "--read-only") }},
		{"takeover, user 1000", func(s *stage) (string, error) {
			if err := os.Chown(s.vol, 1000, 1000); err != nil {
				return "", err
			}
			return s.line("takeover", "--user", "1000:1000")
		}},
		{"takeover, user namespace", func(s *stage) (string, error) {
			const first, all = 200000, "0:200000:65536"
			if err := os.Chown(s.vol, first, first); err != nil {
				return "", err
			}
			return s.line("takeover", "--uidmap", all, "--gidmap", all)
		}},
		{"in place, below --init", func(s *stage) (string, error) { return s.refused("--init") }},
		{"in place, as PID 1", func(s *stage) (string, error) { return s.refused() }},
		{"baton run as PID 1", (*stage).supervised},
		{"takeover, networks of their own", func(s *stage) (string, error) { return s.elsewhere("takeover") }},
		{"drain, networks of their own", func(s *stage) (string, error) { return s.elsewhere("drain") }},
		{"pods of the documentation", (*stage).pods},
	}
}

// stage is where one way is shown.
type stage struct {
	*podman
	o    options
	ctx  context.Context
	vol  string // is mounted at runtimeDir/api
	tcp  string
	http string
	row  row

	clients sync.WaitGroup
	quit    context.CancelFunc
	stats   load.Stats
	loadErr error
}

// show builds the image and shows each way.
func show(ctx context.Context, o options) (*result, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if o.dir, err = os.MkdirTemp("", "containers"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(o.dir)
	p, err := newPodman(o.dir, self)
	if err != nil {
		return nil, err
	}
	o.status("building the image ...")
	res := &result{}
	if res.Podman, err = p.do(ctx, "version", "--format", "{{.Client.Version}}"); err != nil {
		return nil, err
	}
	if err := p.build(ctx, o.bin); err != nil {
		return nil, err
	}
	defer func() {
		_, _ = p.do(context.WithoutCancel(ctx), "pod", "rm", "--all", "--force", "--time=1")
		_, _ = p.do(context.WithoutCancel(ctx), "rm", "--all", "--force", "--time=1")
	}()
	for _, w := range ways() {
		if !strings.Contains(w.name, o.only) {
			continue
		}
		o.status("%s ...", w.name)
		one, err := p.show(ctx, o, w)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			one.Problem = err.Error()
		}
		res.add(one)
		o.line("%-32s %d upgrades, %d requests, %d failed: %s%s", w.name, one.Upgrades, one.Requests, one.Failed, one.Seen, one.Problem)
	}
	return res, nil
}

// build makes the image of the service, which has nothing but the two programs.
func (p *podman) build(ctx context.Context, bin string) error {
	for _, name := range []string{"baton", "baton-demo"} {
		b, err := os.ReadFile(filepath.Join(bin, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(p.dir, name), b, 0o755)
		}
		if err != nil {
			return fmt.Errorf("%w: build the programs with CGO_ENABLED=0", err)
		}
	}
	file := filepath.Join(p.dir, "Containerfile")
	text := "FROM scratch\nCOPY baton baton-demo /\nENTRYPOINT [\"/baton-demo\", \"serve\", \"-dir\", \"" + runtimeDir + "/api\", \"-probation\", \"200ms\"]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	_, err := p.do(ctx, "build", "--isolation=chroot", "--quiet", "--tag", "api:latest", p.dir)
	return err
}

// show shows one way: its containers are gone when it returns.
func (p *podman) show(ctx context.Context, o options, w way) (row, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*patience, fmt.Errorf("not done within %v", 3*patience))
	defer cancel()
	s := &stage{podman: p, o: o, ctx: ctx, vol: filepath.Join(runtimeDir, "api"), row: row{Name: w.name}}
	err := os.RemoveAll(s.vol)
	if err == nil {
		err = os.Mkdir(s.vol, 0o700)
	}
	for _, addr := range []*string{&s.tcp, &s.http} {
		if err == nil {
			*addr, err = free()
		}
	}
	if err != nil {
		return s.row, err
	}
	seen, err := w.run(s)
	s.row.Seen = seen
	if err := s.idle(); err != nil {
		return s.row, err
	}
	if s.row.Failed > 0 {
		err = fmt.Errorf("failed requests: %+v", s.stats.Samples)
	}
	_, rmErr := p.do(context.WithoutCancel(ctx), "rm", "--all", "--force", "--time=5")
	if rmErr != nil { // a file system of it may be busy for a moment
		_, rmErr = p.do(context.WithoutCancel(ctx), "rm", "--all", "--force", "--time=5")
	}
	return s.row, errors.Join(err, rmErr)
}

// free returns an address of the loopback device that no socket has now.
func free() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// busy has clients send requests until idle is called.
func (s *stage) busy(targets ...load.Target) {
	ctx, quit := context.WithCancel(s.ctx)
	s.quit = quit
	s.clients.Go(func() { // ends with ctx
		s.stats, s.loadErr = load.Run(ctx, load.Config{Targets: targets, Pause: 5 * time.Millisecond})
	})
}

func (s *stage) all() []load.Target {
	return []load.Target{
		{Name: "once", Kind: load.Once, Network: "tcp", Address: s.tcp, Workers: 2},
		{Name: "keep", Kind: load.Keep, Network: "tcp", Address: s.tcp, Workers: 2},
		s.web(), {Name: "post", Kind: load.Post, Network: "tcp", Address: s.http, Workers: 2},
	}
}

func (s *stage) web() load.Target {
	return load.Target{Name: "http", Kind: load.HTTP, Network: "tcp", Address: s.http, Workers: 2}
}

// idle ends the clients and counts what they have seen.
func (s *stage) idle() error {
	if s.quit == nil {
		return nil
	}
	s.quit()
	s.clients.Wait()
	s.quit = nil
	s.row.Requests, s.row.Failed = s.stats.Connections, s.stats.Failed
	return s.loadErr
}

// start starts a container of the service.
func (s *stage) start(name, mode string, opts ...string) error {
	args := append([]string{"run", "--detach", "--name", name, "--volume", s.vol + ":" + runtimeDir + "/api"}, opts...)
	if !slices.Contains(opts, "--network=none") {
		args = append(args, "--network=host")
	}
	args = append(args, "api", "-v", "-mode", mode, "-tcp", s.tcp, "-http", s.http)
	_, err := s.do(s.ctx, args...)
	return err
}

// awaitOwner returns when a container has the sockets, as one of the generation.
func (s *stage) awaitOwner(name string, generation int) error {
	ctx, cancel := context.WithTimeoutCause(s.ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	return s.await(ctx, name, `"kind":"owner"`, `"generation":`+strconv.Itoa(generation)+"}")
}

// ended returns an error unless a container ends by itself, with status 0.
func (s *stage) ended(name string) error {
	out, err := s.do(s.ctx, "wait", name)
	if err == nil && out != "0" {
		err = fmt.Errorf("%s ended with status %s", name, out)
	}
	return err
}

// line replaces one container after the other by a new one with the same volume, in the
// network namespace of the machine.
func (s *stage) line(mode string, opts ...string) (string, error) {
	name := func(i int) string { return "api" + strconv.Itoa(i) }
	for i := range s.o.upgrades + 1 {
		if err := s.start(name(i), mode, opts...); err != nil {
			return "", err
		}
		if err := s.awaitOwner(name(i), i+1); err != nil {
			return "", err
		}
		if i == 0 {
			s.busy(s.all()...)
			continue
		}
		if err := s.ended(name(i - 1)); err != nil {
			return "", err
		}
		s.row.Upgrades++
	}
	return "each container took over from the one before, which ended with status 0", nil
}

// refused asks for an upgrade in a container that would end with the first process, and
// then replaces the container.
func (s *stage) refused(opts ...string) (string, error) {
	if err := s.start("api0", "takeover", opts...); err != nil {
		return "", err
	}
	if err := s.awaitOwner("api0", 1); err != nil {
		return "", err
	}
	s.busy(s.all()...)
	out, err := s.do(s.ctx, "exec", "api0", "/baton", "upgrade", "--socket", runtimeDir+"/api/control/sock")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(out, "baton run") {
		return "", fmt.Errorf("an upgrade in place is not refused with what to do: %w: %s", err, out)
	}
	if err := s.start("api1", "takeover", opts...); err != nil {
		return "", err
	}
	if err := errors.Join(s.awaitOwner("api1", 2), s.ended("api0")); err != nil {
		return "", err
	}
	s.row.Upgrades++
	return "refused: " + out, nil
}

// supervised has `baton run` as the first process of a container, and upgrades the
// service below it.
func (s *stage) supervised() (string, error) {
	const sock = runtimeDir + "/api/control/sock"
	_, err := s.do(s.ctx, "run", "--detach", "--network=host", "--name", "api", "--volume", s.vol+":"+runtimeDir+"/api",
		"--entrypoint", "/baton", "api", "run", "--listen", "http=tcp://"+s.http, "--socket", sock, "--",
		"/baton-demo", "serve", "-dir", runtimeDir+"/api", "-probation", "200ms", "-v", "-mode", "takeover", "-tcp", s.tcp, "-http", s.http)
	if err != nil {
		return "", err
	}
	if err := s.awaitOwner("api", 1); err != nil {
		return "", err
	}
	s.busy(s.all()...)
	for i := range s.o.upgrades {
		if _, err := s.do(s.ctx, "exec", "api", "/baton", "upgrade", "--socket", sock); err != nil {
			return "", err
		}
		if err := s.awaitOwner("api", i+2); err != nil {
			return "", err
		}
		s.row.Upgrades++
	}
	return "the container stays, the service below baton is replaced", nil
}

// elsewhere starts a successor in a network namespace of its own.
func (s *stage) elsewhere(mode string) (string, error) {
	if err := s.start("api0", mode); err != nil {
		return "", err
	}
	if err := s.awaitOwner("api0", 1); err != nil {
		return "", err
	}
	s.busy(s.all()...)
	if err := s.start("api1", mode, "--network=none"); err != nil {
		return "", err
	}
	if mode == "drain" {
		out, err := s.do(s.ctx, "wait", "api1")
		if err != nil || out == "0" {
			return "", fmt.Errorf("a successor that would not be in the group ended with status %s: %w", out, err)
		}
		log, err := s.do(s.ctx, "logs", "api1")
		if err != nil || !strings.Contains(log, "network namespace") {
			return "", fmt.Errorf("the successor does not name the reason: %w: %s", err, log)
		}
		return "refused: the first container serves on", nil
	}
	if err := errors.Join(s.awaitOwner("api1", 2), s.ended("api0")); err != nil {
		return "", err
	}
	s.row.Upgrades++
	log, err := s.do(s.ctx, "logs", "api1")
	if err != nil || !strings.Contains(log, "network namespace") {
		return "", fmt.Errorf("the log does not warn of the network namespace: %w: %s", err, log)
	}
	return "taken over, with a warning: the sockets stay in the namespace of the first", nil
}

// pods plays the pods that the documentation shows, one beside the other: the new pod
// of a node takes over from the old one.
func (s *stage) pods() (string, error) {
	text, err := os.ReadFile(s.o.docs)
	if err != nil {
		return "", err
	}
	pods := manifests(string(text))
	if len(pods) == 0 {
		return "", fmt.Errorf("%s shows no pod", s.o.docs)
	}
	s.http = "127.0.0.1:8080" // as in the pods
	generation := 0
	for _, pod := range pods {
		for i := range s.o.upgrades + 1 {
			name := fmt.Sprintf("node-%d", i)
			file := filepath.Join(s.dir, "pod.yaml")
			// podman 4.3 plays Deployments, and no DaemonSets, whose pods are the same.
			played := strings.NewReplacer("kind: DaemonSet", "kind: Deployment", "\n  name: api\n", "\n  name: "+name+"\n").Replace(pod)
			if err := os.WriteFile(file, []byte(played), 0o600); err != nil {
				return "", err
			}
			if _, err := s.do(s.ctx, "kube", "play", file); err != nil {
				return "", err
			}
			generation++
			if err := s.awaitOwner(name+"-pod-0-api", generation); err != nil {
				return "", err
			}
			if i == 0 {
				s.busy(s.web(), load.Target{Name: "post", Kind: load.Post, Network: "tcp", Address: s.http, Workers: 2})
				continue
			}
			s.row.Upgrades++
			if _, err := s.do(s.ctx, "pod", "rm", "--force", "--time=30", fmt.Sprintf("node-%d-pod-0", i-1)); err != nil {
				return "", err
			}
		}
		if err := s.idle(); err != nil {
			return "", err
		}
		if _, err := s.do(s.ctx, "pod", "rm", "--all", "--force", "--time=30"); err != nil {
			return "", err
		}
		generation = 0
	}
	return fmt.Sprintf("%d manifests played: the new pod takes over, then the old one is removed", len(pods)), nil
}

// manifests returns the manifests in a page of the documentation.
func manifests(page string) []string {
	var all []string
	for _, block := range strings.Split(page, "```yaml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		if strings.Contains(text, "\nkind: ") {
			all = append(all, text)
		}
	}
	return all
}
