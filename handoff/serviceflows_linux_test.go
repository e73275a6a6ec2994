package handoff_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff"
)

// The datagrams of the flow service: a byte, and in both directions the ID of the flow
// but in flowOpen. What follows is in the answer as well.
const (
	flowOpen  = iota // answer: flowData, the new ID
	flowData         // answer: flowData; flowReset for an ID that the process does not know
	flowEnd          // answer: flowData
	flowReset        // only an answer
	flowAbort        // has the process give up the upgrade

	flowIDLen = 7
)

// flowIDs say where those are.
var flowIDs = handoff.FlowIDs{Len: flowIDLen, Forms: []handoff.FlowForm{{Mask: 0xff, Value: flowData, At: 1}, {Mask: 0xff, Value: flowEnd, At: 1}}}

// A flowService has the flows of one process: by ID, and by client on an address whose
// datagrams have none.
type flowService struct {
	up *handoff.Upgrader

	mu      sync.Mutex
	flows   map[string]bool // by ID or client
	changed chan struct{}   // capacity 1
}

// flowsMain is the program of a service with flows. It answers with its process ID.
func flowsMain([]string) {
	var set settings
	if err := json.Unmarshal([]byte(os.Getenv(envSettings)), &set); err != nil {
		fail("settings", err)
	}
	p := readPlan(set.Dir)
	if slices.Contains(p.Sockets, "plain") {
		set.Sockets = []string{"udp 127.0.0.1:0"}
	}
	cfg := &handoff.Config{
		Mode: set.Mode, ControlSocket: filepath.Join(set.Dir, "ctl", "s"), PIDFile: set.pidFile(),
		Probation: set.Probation, LingerTimeout: set.Linger, MaxLingering: set.Max,
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Name: strconv.Itoa(os.Getpid())}),
		OnEvent: func(e handoff.Event) {
			say(message{Kind: string(e.Kind), Generation: e.Generation, Report: e.Report, Err: e.Reason, Is: sentinelsOf(e.Err)})
		},
	}
	up, err := handoff.New(cfg)
	if err != nil {
		fail("new", err)
	}
	f := &flowService{up: up, flows: make(map[string]bool), changed: make(chan struct{}, 1)}
	addrs, err := f.listen(set, p)
	if err != nil {
		fail("listen", err)
	}
	release := up.Hold(f.open)
	p.fail(set.Dir, "listening", up)
	if err := up.Ready(); err != nil {
		fail("ready", err)
	}
	say(message{Kind: "addrs", Addrs: addrs, Generation: up.Generation()})
	<-up.Done()
	var cut map[string]uint64
	for expired := false; !expired && f.open() > 0; {
		select {
		case <-f.changed:
		case <-up.LingerExpired():
			expired, cut = true, map[string]uint64{"flow": uint64(f.open())}
		}
	}
	release(cut)
	if err := up.Shutdown(context.Background()); err != nil {
		fail("shutdown", err)
	}
	say(message{Kind: "exit", Generation: up.Generation()})
}

func (f *flowService) listen(set settings, p plan) (map[string]string, error) {
	ctx := context.Background()
	at := map[string]string{"ids": "127.0.0.1:0", "kept": "localhost:0"}
	if len(p.Flows) > 0 {
		at = p.Flows
	}
	if len(set.Sockets) > 0 {
		return listenAll(f.up, set.Sockets, settings{late: new(sync.WaitGroup)})
	}
	ids, err := f.up.ListenFlows(ctx, "udp", at["ids"], handoff.FlowConfig{IDs: flowIDs, Lanes: 4})
	if err != nil {
		return nil, err
	}
	kept, err := f.up.ListenFlows(ctx, "udp", at["kept"], handoff.FlowConfig{})
	if err != nil {
		return nil, err
	}
	go f.serve(ids, func(p []byte, _ netip.AddrPort) ([]byte, string) { return f.byID(ids, p) })
	go f.serve(kept, func(p []byte, from netip.AddrPort) ([]byte, string) { return f.byClient(kept, p, from) })
	return map[string]string{"ids": ids.Conn().LocalAddr().String(), "kept": kept.Conn().LocalAddr().String()}, nil
}

func (f *flowService) open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.flows)
}

// set has a flow open or not, and reports whether it was.
func (f *flowService) set(flow string, open bool) (was bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was = f.flows[flow]
	if open {
		f.flows[flow] = true
	} else {
		delete(f.flows, flow)
	}
	select {
	case f.changed <- struct{}{}:
	default:
	}
	return was
}

// serve answers datagrams until Shutdown closes the socket.
func (f *flowService) serve(fl *handoff.Flows, answer func(p []byte, from netip.AddrPort) (answer []byte, ended string)) {
	b := make([]byte, 1500)
	for {
		n, from, err := fl.Conn().ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if p := b[:n]; n > 0 {
			if p[0] == flowAbort {
				go func() { _ = f.up.Abort(errors.New("a client asked for it")) }()
				continue
			}
			a, ended := answer(p, from)
			_, _ = fl.Conn().WriteToUDPAddrPort(strconv.AppendInt(a, int64(os.Getpid()), 10), from) // the client sees what fails
			if ended != "" {                                                                        // then this process may end
				f.set(ended, false)
			}
		}
	}
}

func (f *flowService) byID(fl *handoff.Flows, p []byte) (answer []byte, ended string) {
	id := make([]byte, flowIDLen)
	if p[0] == flowOpen {
		_, _ = rand.Read(id) // never fails
		if err := fl.Mark(id); err != nil {
			fail("mark", err)
		}
		f.set(string(id), true)
		return append([]byte{flowData}, id...), ""
	}
	copy(id, p[1:])
	switch {
	case !f.set(string(id), true):
		return append([]byte{flowReset}, id...), string(id)
	case p[0] == flowEnd:
		ended = string(id)
	}
	return append([]byte{flowData}, id...), ended
}

func (f *flowService) byClient(fl *handoff.Flows, p []byte, from netip.AddrPort) (answer []byte, ended string) {
	answer = append([]byte{flowData}, make([]byte, flowIDLen)...)
	keep := fl.Keep
	if p[0] == flowEnd {
		keep, ended = fl.Forget, from.String()
	}
	if err := keep(from); err != nil {
		fail("keep", err)
	}
	f.set(from.String(), true)
	return answer, ended
}

// A flow is a client's side of one. It sends nothing twice.
type flow struct {
	conn net.Conn
	id   [flowIDLen]byte
}
