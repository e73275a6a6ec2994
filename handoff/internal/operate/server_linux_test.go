package operate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// patience bounds each wait of a test.
const patience = 10 * time.Second

// service is a Service of functions.
type service struct {
	upgrade func(ctx context.Context, program string) (any, error)
	join    func(a session.Arrival) error
	stop    func(reason string)
}

func (s *service) Status() []any { return []any{map[string]int{"a": 1}, map[string]int{"b": 2}} }

func (s *service) Upgrade(ctx context.Context, asked operate.Upgrade) (any, error) {
	return s.upgrade(ctx, asked.Executable)
}

func (s *service) Rollback(_ context.Context, reason string) (any, error) { return reason, nil }

func (s *service) Stop(reason string) { s.stop(reason) }

func (s *service) Linger() operate.Linger { return operate.Linger{Open: 7, Remaining: -1} }

func (s *service) Join(a session.Arrival, _ fdx.Cred) error { return s.join(a) }

// rig is a server at a control socket of its own.
type rig struct {
	tb     testing.TB
	ln     net.Listener
	events operate.Subscribers
	log    hclog.Logger
	stop   chan struct{}
	served chan struct{} // closed when Serve has returned
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	_, ln, err := operate.Open(filepath.Join(testenv.ShortDir(tb), "s"), patience, hclog.NewNullLogger())
	if err != nil {
		tb.Fatal(err)
	}
	return &rig{tb: tb, ln: ln, log: hclog.NewNullLogger(), stop: make(chan struct{}), served: make(chan struct{})}
}

// serve has s answer.
func (r *rig) serve(s *service, timeout time.Duration) *rig {
	server := &operate.Server{Service: s, Name: "api", Subscribers: &r.events, Log: r.log, Timeout: timeout, Stop: r.stop}
	go func() {
		defer close(r.served)
		server.Serve(r.ln.Accept)
	}()
	r.tb.Cleanup(func() {
		r.end()
		<-r.served
	})
	return r
}

// end has Serve return when its connections are closed.
func (r *rig) end() {
	select {
	case <-r.stop:
	default:
		close(r.stop)
		_ = r.ln.Close()
	}
}

// dial connects to the server.
func (r *rig) dial() *session.WireLink {
	r.tb.Helper()
	c, err := operate.Dial(r.ln.Addr().String())
	if err != nil {
		r.tb.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		r.tb.Fatal(err)
	}
	link := session.NewWireLink(fdpass.New(c), 0)
	r.tb.Cleanup(func() { _ = link.Close() })
	return link
}

// ask sends a message as the first one of a connection.
func (r *rig) ask(m wire.Message) *session.WireLink {
	r.tb.Helper()
	link := r.dial()
	if err := link.Send(m, nil); err != nil {
		r.tb.Fatal(err)
	}
	return link
}

// request is a request of this version.
func request(op, body string) *wire.Request {
	return &wire.Request{Op: op, MinVersion: wire.MinVersion, MaxVersion: wire.MaxVersion, Body: []byte(body)}
}

// answer is what the tests look at.
type answer struct {
	Status  map[string]int
	Event   string
	Report  string
	Linger  *operate.Linger
	Failure *operate.Failure
}

// next reads an answer.
func next(tb testing.TB, link *session.WireLink) (a answer, final bool) {
	tb.Helper()
	m, fds, err := link.Recv()
	_ = fdx.Close(fds...)
	if err != nil {
		tb.Fatal(err)
	}
	r, ok := m.(*wire.Response)
	if !ok {
		tb.Fatalf("%+v, want an answer", m)
	}
	if err := json.Unmarshal(r.Body, &a); err != nil {
		tb.Fatal(err)
	}
	return a, r.Final
}

// refused reads a refusal.
func refused(tb testing.TB, link *session.WireLink) *wire.Refuse {
	tb.Helper()
	m, fds, err := link.Recv()
	_ = fdx.Close(fds...)
	if err != nil {
		tb.Fatal(err)
	}
	r, ok := m.(*wire.Refuse)
	if !ok {
		tb.Fatalf("%+v, want a refusal", m)
	}
	return r
}

// TestRefusals refuses what is no request of this version, in words.
func TestRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve(&service{join: func(session.Arrival) error { return fmt.Errorf("%w: of all times", failure.InProgress) }}, patience)
	for _, c := range []struct {
		m      wire.Message
		reason failure.Reason
		text   string
	}{
		{&wire.Request{Op: operate.OpStatus, MinVersion: 98, MaxVersion: 99}, failure.Version, "98 to 99"},
		{request("dance", ""), failure.Unsupported, `"dance"`},
		{&wire.Request{Op: operate.OpStatus, MinVersion: wire.MinVersion, MaxVersion: wire.MaxVersion, Name: "web"}, failure.PeerRefused, `the Name "api", and the request is for "web"`},
		{&wire.Welcome{}, failure.Unsupported, "the first message is neither that of a successor nor a request"},
		{&wire.Hello{}, failure.InProgress, "of all times"},
	} {
		if got := refused(t, r.ask(c.m)); got.Reason != c.reason || !strings.Contains(got.Text, c.text) {
			t.Errorf("%T: %+v, want %s with %q", c.m, got, c.reason.Name(), c.text)
		}
	}
}

// TestSilent refuses a peer that sends nothing in time, and when the server stops.
func TestSilent(t *testing.T) {
	t.Parallel()
	if got := refused(t, newRig(t).serve(&service{}, time.Millisecond).dial()); got.Reason != failure.Closed {
		t.Errorf("%+v, want closed", got)
	}
	r := newRig(t).serve(&service{}, time.Hour)
	link := r.dial()
	status := r.ask(request(operate.OpStatus, "")) // it comes after link
	next(t, status)
	r.end()
	if got := refused(t, link); got.Reason != failure.Closed {
		t.Errorf("%+v when the server stops, want closed", got)
	}
}

// TestStatus sends all parts.
func TestStatus(t *testing.T) {
	t.Parallel()
	link := newRig(t).serve(&service{}, patience).ask(request(operate.OpStatus, ""))
	first, final := next(t, link)
	second, last := next(t, link)
	if first.Status["a"] != 1 || final || second.Status["b"] != 2 || !last {
		t.Errorf("%v, %t and %v, %t", first, final, second, last)
	}
}

// TestUpgrade passes on the events of the upgrade that was asked for, not those of one
// before, and its report.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serve(&service{upgrade: func(_ context.Context, program string) (any, error) {
		r.events.Publish(operate.Event{Value: "failed, of the upgrade before"})
		r.events.Publish(operate.Event{Value: "started", Starts: true})
		r.events.Publish(operate.Event{Value: "committed"})
		return program, nil
	}}, patience)
	link := r.ask(request(operate.OpUpgrade, `{"executable":"/next"}`))
	for _, want := range []string{"started", "committed"} {
		if a, final := next(t, link); a.Event != want || final {
			t.Errorf("%+v, %t, want %s", a, final, want)
		}
	}
	if a, final := next(t, link); a.Report != "/next" || !final {
		t.Errorf("%+v, %t, want the report", a, final)
	}
}

// TestUpgradeFails tells what is known of the successor.
func TestUpgradeFails(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve(&service{upgrade: func(context.Context, string) (any, error) {
		return nil, &operate.FailedUpgrade{Outcome: "failed", PID: 9, Stderr: []string{"oh"}, Err: failure.SuccessorDied}
	}}, patience)
	a, final := next(t, r.ask(request(operate.OpUpgrade, "")))
	f := a.Failure
	if f == nil || !final || f.Reason != failure.SuccessorDied || f.Upgrade == nil || f.Upgrade.PID != 9 || len(f.Upgrade.Stderr) != 1 {
		t.Errorf("%+v, %t", f, final)
	}
	if a, _ := next(t, r.ask(request(operate.OpUpgrade, `{"executable":"next"}`))); a.Failure == nil || a.Failure.Reason != failure.Protocol || a.Failure.Upgrade != nil {
		t.Errorf("a relative path: %+v", a.Failure)
	}
}

// TestCancel ends the upgrade of a tool that cancels it, not of one that is gone, for
// which Serve waits.
func TestCancel(t *testing.T) {
	t.Parallel()
	started, causes, finish := make(chan struct{}), make(chan error, 1), make(chan struct{})
	r := newRig(t).serve(&service{upgrade: func(ctx context.Context, _ string) (any, error) {
		started <- struct{}{}
		select {
		case <-ctx.Done():
			causes <- context.Cause(ctx)
			return nil, failure.RolledBack
		case <-finish:
			return "done", nil
		}
	}}, patience)
	link := r.ask(request(operate.OpUpgrade, ""))
	<-started
	if err := link.Send(request(operate.OpCancel, ""), nil); err != nil {
		t.Fatal(err)
	}
	if a, _ := next(t, link); a.Failure == nil || a.Failure.Reason != failure.RolledBack {
		t.Errorf("%+v, want rolled back", a)
	}
	if err := <-causes; !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("canceled because of %v", err)
	}
	link = r.ask(request(operate.OpUpgrade, `{"timeout":1000000}`))
	<-started
	if a, _ := next(t, link); a.Failure == nil {
		t.Errorf("%+v after the timeout, want a failure", a)
	}
	if err := <-causes; !errors.Is(err, failure.Timeout) {
		t.Errorf("canceled because of %v, want a timeout", err)
	}
	link = r.ask(request(operate.OpUpgrade, ""))
	<-started
	if err := link.Close(); err != nil {
		t.Fatal(err)
	}
	r.end()
	select {
	case <-r.served:
		t.Error("Serve has returned before the upgrade")
	case err := <-causes:
		t.Errorf("an upgrade whose tool is gone was canceled: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(finish)
	<-r.served
}

// TestNoWait answers a tool that does not wait when the upgrade has started.
func TestNoWait(t *testing.T) {
	t.Parallel()
	r, finish := newRig(t), make(chan struct{})
	r.serve(&service{upgrade: func(context.Context, string) (any, error) {
		r.events.Publish(operate.Event{Value: "started", Starts: true})
		<-finish
		return "done", nil
	}}, patience)
	link := r.ask(request(operate.OpUpgrade, `{"wait":"none"}`))
	if a, final := next(t, link); a.Event != "started" || final {
		t.Errorf("%+v, %t", a, final)
	}
	if _, final := next(t, link); !final {
		t.Error("no final answer after the start")
	}
	close(finish)
}

// TestDrain sends the process and the counts up to the last event.
func TestDrain(t *testing.T) {
	t.Parallel()
	reasons := make(chan string, 1)
	r := newRig(t).serve(&service{stop: func(reason string) { reasons <- reason }}, patience)
	link := r.ask(request(operate.OpDrain, `{"process":true}`))
	m, fds, err := link.Recv()
	if got := <-reasons; got == "" {
		t.Error("no reason")
	}
	if err != nil || len(fds) != 1 {
		t.Fatalf("%+v, %d descriptors, %v, want the process", m, len(fds), err)
	}
	_ = fdx.Close(fds...)
	if a, final := next(t, link); a.Linger == nil || a.Linger.Open != 7 || final {
		t.Errorf("%+v, %t", a, final)
	}
	r.events.Publish(operate.Event{Value: "stopped", Last: true})
	for stopped := false; ; {
		a, final := next(t, link)
		stopped = stopped || a.Event == "stopped"
		if final {
			if !stopped || a.Linger == nil {
				t.Errorf("final answer %+v; stopped before: %t", a, stopped)
			}
			break
		}
	}
}

// TestSlowTool fails a tool that reads too slowly for its events.
func TestSlowTool(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve(&service{}, patience)
	r.events.Publish(operate.Event{Value: "first"})
	link := r.ask(request(operate.OpEvents, `{"follow":true}`))
	if a, _ := next(t, link); a.Event != "first" {
		t.Fatalf("%+v", a)
	}
	big := strings.Repeat("x", 1<<10)
	for range 20_000 {
		r.events.Publish(operate.Event{Value: big})
	}
	for {
		a, final := next(t, link)
		if final {
			if a.Failure == nil || !strings.Contains(a.Failure.Text, "lost") {
				t.Errorf("%+v, want that events were lost", a)
			}
			return
		}
	}
}

// TestPlaces has tools that follow events, as many as there may be, and commands: each
// kind has places of its own, and a rollback one more.
func TestPlaces(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	r := newRig(t)
	r.serve(&service{upgrade: func(context.Context, string) (any, error) {
		r.events.Publish(operate.Event{Value: "started", Starts: true})
		<-hold
		return "late", nil
	}}, patience)
	t.Cleanup(func() { close(hold) }) // before the rig's
	r.events.Publish(operate.Event{Value: "first"})
	fill := func(op, body string) (n int) {
		t.Helper()
		for ; n < 100; n++ {
			link := r.ask(request(op, body))
			m, fds, err := link.Recv()
			_ = fdx.Close(fds...)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := m.(*wire.Refuse); ok {
				return n
			}
		}
		return n
	}
	if n := fill(operate.OpEvents, `{"follow":true}`); n != operate.MaxFollowers {
		t.Errorf("%d tools may follow events, want %d", n, operate.MaxFollowers)
	}
	if n := fill(operate.OpUpgrade, ""); n != operate.MaxCommands {
		t.Errorf("%d tools may command, want %d", n, operate.MaxCommands)
	}
	if a, _ := next(t, r.ask(request(operate.OpStatus, ""))); a.Status["a"] != 1 {
		t.Errorf("a status: %+v", a)
	}
	if a, final := next(t, r.ask(request(operate.OpRollback, `{"reason":"now"}`))); a.Report != "now" || !final {
		t.Errorf("a rollback: %+v, %t", a, final)
	}
}

// TestWarnings refuses many successors, and writes a few lines about them.
func TestWarnings(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	r := newRig(t)
	r.log = hclog.New(&hclog.LoggerOptions{Output: &log, Mutex: new(sync.Mutex)})
	r.serve(&service{join: func(session.Arrival) error { return failure.InProgress }}, patience)
	for range 100 {
		refused(t, r.ask(&wire.Hello{}))
	}
	r.end()
	<-r.served
	if n := strings.Count(log.String(), "\n"); n != operate.MaxWarnings {
		t.Errorf("%d lines, want %d:\n%s", n, operate.MaxWarnings, log.String())
	}
}

// TestCheckPeer lets in this user, root, and whom the program allows.
func TestCheckPeer(t *testing.T) {
	t.Parallel()
	another := fdx.Cred{PID: 1, UID: 54321}
	allow := func(c fdx.Cred) bool { return c == another }
	if err := operate.CheckPeer(fdx.Cred{}, nil, nil); err != nil {
		t.Errorf("root: %v", err)
	}
	if err := operate.CheckPeer(another, nil, allow); err != nil {
		t.Errorf("an allowed user: %v", err)
	}
	if err := operate.CheckPeer(another, nil, nil); !errors.Is(err, failure.PeerRefused) || !strings.Contains(err.Error(), "54321") {
		t.Errorf("another user: %v", err)
	}
	if err := operate.CheckPeer(fdx.Cred{}, errors.New("no such peer"), allow); !errors.Is(err, failure.PeerRefused) {
		t.Errorf("an unknown peer: %v", err)
	}
}
