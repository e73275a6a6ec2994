package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
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
		return nil, fmt.Errorf("%w: %w", errNoContainers, err)
	}
	o.status("looking whether podman can run a container ...")
	res := &result{}
	if res.Podman, err = p.do(ctx, "version", "--format", "{{.Client.Version}}"); err == nil {
		err = p.check(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoContainers, err)
	}
	o.status("building the image ...")
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
		s.web(),
		{Name: "post", Kind: load.Post, Network: "tcp", Address: s.http, Workers: 2},
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
