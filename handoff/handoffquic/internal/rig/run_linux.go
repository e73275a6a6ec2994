package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A Run is a service that is replaced under the load of its clients.
type Run struct {
	Service  Service
	Clients  Clients
	Upgrades int
	// Command returns a command that runs [ServiceMain] or [ClientsMain]: "service" or
	// "clients".
	Command func(role string) *exec.Cmd
	User    uint32 // of the service; zero means that of this process
	// Between is called before each upgrade, with its number, and at the end.
	Between func(n int) error
}

// A Report is how a Run went.
type Report struct {
	Result
	Upgrades int
	Log      string
	Took     time.Duration
}

func (r *Report) String() string {
	return fmt.Sprintf("result: upgrades=%d requests=%d connections=%d migrations=%d failed=%d broken=%d rejected=%d strayed=%d",
		r.Upgrades, r.Requests, r.Connections, r.Migrations, r.Failed, r.Broken, r.Rejected, r.Strayed)
}

// Lost reports how much the clients have lost.
func (r *Report) Lost() int64 { return r.Failed + r.Broken + r.Rejected + r.Strayed }

// patience bounds each wait.
const patience = time.Minute

// Do runs it.
func (r *Run) Do(ctx context.Context) (*Report, error) {
	began := time.Now()
	if err := r.Service.prepare(); err != nil {
		return nil, err
	}
	if r.User != 0 {
		if err := os.Chown(r.Service.Dir, int(r.User), int(r.User)); err != nil {
			return nil, err
		}
	}
	var log bytes.Buffer
	service := r.Command("service")
	env, err := r.Service.Environ()
	if err != nil {
		return nil, err
	}
	service.Env = append(service.Environ(), env)
	service.Stderr = &log
	if r.User != 0 {
		if service.SysProcAttr == nil {
			service.SysProcAttr = new(syscall.SysProcAttr)
		}
		service.SysProcAttr.Credential = &syscall.Credential{Uid: r.User, Gid: r.User}
	}
	// Its successors write to the same pipe: Wait would wait for all.
	service.WaitDelay = patience
	if err := service.Start(); err != nil {
		return nil, err
	}
	report := &Report{}
	err = r.load(ctx, report)
	err = errors.Join(err, r.stop(service))
	report.Log, report.Took = log.String(), time.Since(began)
	return report, err
}

func (r *Run) stop(service *exec.Cmd) error {
	pid, err := r.Service.pid()
	if err != nil && r.Service.Style != Plain {
		return errors.Join(err, service.Process.Kill(), service.Wait())
	}
	if r.Service.Style == Plain {
		return errors.Join(service.Process.Kill(), ignore(service.Wait()))
	}
	err = syscall.Kill(pid, syscall.SIGTERM)
	return errors.Join(err, service.Wait(), r.await("the end of the service", func() bool {
		_, err := r.Service.pid()
		return errors.Is(err, os.ErrNotExist)
	}))
}

func ignore(error) error { return nil }

// load runs the clients and the upgrades.
func (r *Run) load(ctx context.Context, report *Report) (err error) {
	if err := r.await("the first process", func() bool {
		b, err := os.ReadFile(r.Service.path("address"))
		r.Clients.Address = string(b)
		_, perr := r.Service.pid()
		return err == nil && (perr == nil || r.Service.Style == Plain)
	}); err != nil {
		return err
	}
	r.Clients.Cert = r.Service.path("cert.pem")
	text, err := json.Marshal(r.Clients)
	if err != nil {
		return err
	}
	clients := r.Command("clients")
	clients.Env = append(clients.Environ(), envClients+"="+string(text))
	var out bytes.Buffer
	clients.Stdout, clients.Stderr = &out, os.Stderr
	in, err := clients.StdinPipe()
	if err != nil {
		return err
	}
	if err := clients.Start(); err != nil {
		return err
	}
	for n := range r.Upgrades {
		if err = r.between(n); err == nil {
			err = r.upgrade(ctx)
		}
		if err != nil {
			break
		}
		report.Upgrades++
	}
	if err == nil {
		err = r.between(r.Upgrades)
	}
	err = errors.Join(err, in.Close(), clients.Wait())
	if err == nil {
		err = json.NewDecoder(io.TeeReader(&out, io.Discard)).Decode(&report.Result)
	}
	return err
}

func (r *Run) between(n int) error {
	if r.Between == nil {
		return nil
	}
	return r.Between(n)
}

// upgrade sends SIGUSR2 until another process serves: while lanes are missing, or in mode
// Inherit a predecessor lingers, the service refuses.
func (r *Run) upgrade(ctx context.Context) error {
	old, err := r.Service.pid()
	if err != nil {
		return err
	}
	var asked time.Time
	err = r.await("an upgrade", func() bool {
		if ctx.Err() != nil {
			return true
		}
		if time.Since(asked) > 10*time.Second {
			asked = time.Now()
			_ = syscall.Kill(old, syscall.SIGUSR2) // it may have ended just now
		}
		pid, err := r.Service.pid()
		return err == nil && pid != old && r.committed(pid)
	})
	return errors.Join(err, context.Cause(ctx))
}

// committed reports whether a process owns the sockets.
func (r *Run) committed(pid int) bool {
	b, err := os.ReadFile(r.Service.path("events"))
	return err == nil && strings.Contains(string(b), fmt.Sprintf(`"kind":"owner","pid":%d,`, pid))
}

func (r *Run) await(what string, ok func() bool) error {
	for until := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			return fmt.Errorf("%s: not within %v", what, patience)
		}
	}
	return nil
}
