package supervisor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// A Supervisor runs an app.
type Supervisor struct {
	cfg        *Config
	log        hclog.Logger
	stopSignal syscall.Signal
	sockets    *sockets
	notify     *notifySocket
	unkept     string // why its path does not lead there, or empty
	manager    *sdnotify.Queue

	todo *todo
	wg   sync.WaitGroup // of all goroutines

	// Run's goroutine owns the fields below.
	byPID    map[int]*generation // all generations that have not ended
	last     int                 // number of the last generation
	serving  *generation         // the ready one
	coming   *generation         // the next one, not ready yet
	relief   *generation         // serves in place of one that has died, until coming is ready
	lostMain *generation         // its main process has died; a process of its group may become the main process
	proven   *program            // the program that was ready last; nil if it can't be kept open
	tried    fileID              // the program that was at the app's path at the last start from there
	asked    bool                // an upgrade is queued behind the one in progress
	asking   bool                // we have asked the app to upgrade itself

	backoff backoff
	again   *time.Timer // the next restart; nil if none is scheduled

	stopping bool
	killed   bool // a generation had to be killed
	over     bool
	result   error
}

// New binds the app's sockets. The caller calls Run next. An error matches
// [ErrConfig] or [ErrListen].
func New(c *Config) (*Supervisor, error) {
	if c == nil {
		c = Default()
	}
	cfg := *c
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	s := &Supervisor{
		cfg: &cfg, log: cfg.Logger, todo: newTodo(), byPID: make(map[int]*generation),
		backoff: backoff{first: cfg.RestartDelay, most: cfg.RestartMaxDelay, limit: cfg.RestartLimit},
	}
	var err error
	if s.stopSignal, err = parseSignal(cfg.StopSignal); err != nil {
		return nil, err
	}
	if s.sockets, err = bind(cfg.Listen); err != nil {
		return nil, err
	}
	if s.notify, err = newNotifySocket(); err != nil {
		s.sockets.close()
		return nil, err
	}
	return s, nil
}

// Run starts the app and returns when it has ended for good: nil after a stop signal or
// if the app ended as configured, else an error that matches [ErrStart] or [ErrFailed].
func (s *Supervisor) Run() error {
	defer s.sockets.close()
	defer s.notify.close()
	s.manager = s.newManager()
	// When the thread that started the app ends, the kernel sends the app the stop
	// signal.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Orphans of the app become our children, and so does a successor that the app has
	// started, when the app ends first (see adopt).
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_CHILD_SUBREAPER)", err)
	}
	signals, children := make(chan os.Signal, 16), make(chan os.Signal, 1)
	signal.Notify(signals, handled()...)
	defer signal.Stop(signals)
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(children)
	s.wg.Go(func() { // ends with notify.close
		s.notify.listen(s.todo.add, s.admits, s.receive, s.keepNotifySocket)
	})
	for i, one := range s.sockets.all {
		s.log.Info("socket", "name", one.Name, "address", s.sockets.addrs[i], "fd", firstFD+i)
	}
	s.start(true)
	s.reap() // children that we inherited before the loop ran
	for !s.over {
		select {
		case <-children:
			s.reap()
		case sig := <-signals:
			s.signal(sig.(syscall.Signal))
		case <-s.todo.wake:
			for _, f := range s.todo.take() {
				f()
			}
		}
	}
	s.proven.close()
	s.notify.close()   // its goroutine waits for todo no longer
	s.manager.Close(0) // messages that the service manager has not read are lost
	s.wg.Wait()
	for _, f := range s.todo.take() {
		f() // the last notifications have descriptors to close
	}
	return s.stopped()
}

func (s *Supervisor) number() int {
	s.last++
	return s.last
}

// start starts a generation. wanted is the argument of find. A program that can't be
// started is handled like one that has ended.
func (s *Supervisor) start(wanted bool) {
	s.again = nil
	var err error
	if len(s.byPID) == 0 {
		err = s.sockets.setNonblock(s.cfg.NonBlock)
	}
	g := &generation{number: s.number(), began: time.Now()}
	if err == nil {
		err = s.spawn(g, wanted)
	}
	if err != nil {
		g.end()
		s.notStarted(g, err)
		return
	}
	s.byPID[g.pid] = g
	if s.coming != nil {
		s.relief = g
	} else {
		s.coming = g
	}
	if s.serving != nil {
		g.after = s.serving.pid
	}
	s.log.Info("started", "generation", g.number, "pid", g.pid, "app", s.cfg.Args[0])
	s.await(g)
}

// notStarted gives up if the app has never run. If it can't be started in an upgrade,
// the serving generation continues.
func (s *Supervisor) notStarted(g *generation, err error) {
	switch {
	case s.serving != nil:
		s.failed(err.Error())
	case errors.Is(err, ErrStart) && s.last == 1:
		s.finish(err)
	default: // the program may reappear: an installation may be in progress
		s.down(err.Error(), false)
	}
}

// ready handles the next generation's becoming ready.
func (s *Supervisor) ready(g *generation) {
	g.cancel()
	g.served = time.Now()
	s.prove(g.program)
	g.program = nil
	old := s.serving
	s.serving = g
	s.log.Info("ready", "generation", g.number, "pid", g.pid, "took", g.served.Sub(g.began).Round(time.Millisecond))
	if g.after != 0 {
		s.log.Info("upgraded", "generation", g.number, "pid", g.pid, "predecessor", g.after)
	} else {
		s.manager.Send(sdnotify.Message{sdnotify.Ready})
	}
	if s.relieved(g) {
		return
	}
	s.coming = nil
	if old != nil {
		s.retire(old)
	}
	if s.asked {
		s.upgrade()
	}
}

// unready handles a generation that has failed to become ready.
func (s *Supervisor) unready(g *generation, why string) {
	if g == s.relief {
		s.relief = nil
	} else {
		s.coming = nil
	}
	switch {
	case s.serving != nil:
		s.failed(why)
	case s.coming == nil && s.relieving():
		s.instead(why)
	default:
		s.log.Error("not ready", "generation", g.number, "pid", g.pid, "error", why)
		g.givenUp = why
	}
	s.terminate(g, "it is not ready")
}

// reap waits for all children that have ended.
func (s *Supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil || pid <= 0:
			return // no child is left, or none has ended
		}
		if g := s.byPID[pid]; g != nil {
			s.ended(g, statusText(status), status.Exited() && status.ExitStatus() == 0)
		} else {
			s.log.Debug("an orphan has ended", "pid", pid, "status", statusText(status))
		}
	}
}

// ended handles the end of a generation.
func (s *Supervisor) ended(g *generation, how string, clean bool) {
	delete(s.byPID, g.pid)
	g.end()
	level := hclog.Info
	if !clean && !g.signalled {
		level = hclog.Warn
	}
	s.log.Log(level, "ended", "generation", g.number, "pid", g.pid, "status", how, "after", time.Since(g.began).Round(time.Millisecond))
	heirs := g == s.serving && s.coming == nil && !clean && g.spoke && !s.stopping && s.leaves(g)
	if !heirs && (!clean || s.stopping) {
		s.killGroup(g) // processes that it left behind would keep accepting
	}
	wasServing, wasComing, wasRelief := g == s.serving, g == s.coming, g == s.relief
	if wasServing {
		s.serving = nil
		s.settle(g)
	}
	if wasComing {
		s.coming = nil
	}
	if wasRelief {
		s.relief = nil
	}
	switch {
	case s.stopping:
		s.over = len(s.byPID) == 0
	case wasComing && s.serving != nil:
		s.failed("it has ended before it was ready: " + how)
	case wasComing && s.relieving():
		s.instead("it has ended before it was ready: " + how)
	case heirs:
		s.awaitSuccessor(g, how)
	case wasServing && s.coming != nil:
		s.relieve(g, how, clean)
	case wasRelief:
		s.restart(how)
	case wasComing, wasServing, g.givenUp != "" && s.coming == nil && s.serving == nil:
		if g.givenUp != "" {
			how, clean = g.givenUp, false
		}
		s.down(how, clean)
	}
}

// settle resets the backoff after a generation that has served for long enough.
func (s *Supervisor) settle(g *generation) {
	if time.Since(g.served) >= s.cfg.RestartReset {
		s.backoff.reset()
	}
}

// down applies the restart policy when no generation serves.
func (s *Supervisor) down(how string, clean bool) {
	switch {
	case s.cfg.Restart == RestartAlways, s.cfg.Restart == RestartOnFailure && !clean:
		s.restart(how)
	case clean:
		s.finish(nil)
	default:
		s.finish(fmt.Errorf("%w: %s; --restart=%s", ErrFailed, how, s.cfg.Restart))
	}
}

// restart starts the app again after a pause.
func (s *Supervisor) restart(how string) {
	if s.asked && s.coming == nil { // the queued upgrade may use a new version; this restart may too
		s.backoff.reset()
		s.start(false)
		return
	}
	d, ok := s.backoff.next(rand.Float64())
	switch {
	case !ok && s.coming != nil:
		s.log.Error("the app is down: waiting for its successor", "why", how, "restarts", s.backoff.tries)
		return
	case !ok:
		s.finish(fmt.Errorf("%w: %s, after %d restarts", ErrFailed, how, s.backoff.tries))
		return
	}
	s.log.Warn("the app is down: restarting it", "in", d.Round(time.Millisecond), "restarts", s.backoff.tries, "why", how)
	s.again = time.AfterFunc(d, func() {
		s.todo.add(func() {
			if s.again != nil && !s.stopping {
				s.start(false)
			}
		})
	})
}

// finish ends everything and sets Run's result.
func (s *Supervisor) finish(err error) {
	why := "the app is done"
	if err != nil {
		why = err.Error()
	}
	s.result = err
	s.stop(why)
}

// parseSignal parses a signal's name, with or without SIG.
func parseSignal(name string) (syscall.Signal, error) {
	upper := strings.ToUpper(name)
	if !strings.HasPrefix(upper, "SIG") {
		upper = "SIG" + upper
	}
	if sig := unix.SignalNum(upper); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("%w: stop signal %q: want a name such as TERM or QUIT", ErrConfig, name)
}
