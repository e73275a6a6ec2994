package handoff

import (
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// State says what a process does now.
type State string

// The states.
const (
	StateStarting  State = "starting"  // has not called Ready yet
	StateServing   State = "serving"   // accepts connections
	StateLingering State = "lingering" // has a successor, and serves its open connections to their end
	StateStopping  State = "stopping"  // ends without a successor, and serves its open connections to their end
	StateClosed    State = "closed"    // Shutdown has returned
)

// Status describes a process and its predecessors that linger.
type Status struct {
	Name       string `json:"name,omitempty"` // Config.Name
	PID        int    `json:"pid"`
	UID        int    `json:"uid"`
	Generation uint64 `json:"generation"`
	Version    string `json:"version,omitempty"` // Config.Version
	Build      string `json:"build,omitempty"`   // package, version, revision and Go version of the program, as far as the Go command has noted them
	Executable string `json:"executable"`        // what an upgrade starts
	Mode       Mode   `json:"mode"`              // of the next upgrade
	State      State  `json:"state"`

	Started time.Time     `json:"started"` // when New was called
	Uptime  time.Duration `json:"uptime"`

	// Open, Moved and Cut count the connections ([Upgrader.Track], [Upgrader.Hold]) of
	// this process: open now, passed to a successor, closed by force. Remaining is the
	// time until the linger limit; negative if there is no limit, or if the process
	// neither lingers nor stops.
	Open      uint64        `json:"open"`
	Moved     uint64        `json:"moved"`
	Cut       uint64        `json:"cut"`
	Remaining time.Duration `json:"remaining"`

	Accepted uint64         `json:"accepted"` // by all listeners, in this process
	Received uint64         `json:"received"` // connections that predecessors have passed on
	Sockets  []SocketStatus `json:"sockets"`

	Flows []FlowStatus `json:"flows,omitempty"` // addresses of [Upgrader.ListenFlows]

	Lingering []Process `json:"lingering"` // predecessors that linger, oldest first

	// NoUpgrade says why no upgrade can begin, and what to change. It is empty where
	// nothing is known to be in the way.
	NoUpgrade string `json:"no_upgrade,omitempty"`
	// Warnings say what an operator should change, although upgrades work: which sockets
	// are of another network namespace.
	Warnings []string `json:"warnings,omitempty"`

	// Upgrade is the last event of the upgrade that is under way; nil if none is.
	Upgrade *Event `json:"upgrade,omitempty"`
	// Upgrades are the reports of the last upgrades of the line, oldest first, failed
	// ones included. The predecessor sends those before it after the commit. A report
	// has the predecessor's linger when that is over.
	Upgrades []Report `json:"upgrades"`
	// Totals are those of the line. They are nil until the predecessor has sent them,
	// right after the commit.
	Totals *Totals `json:"totals,omitempty"`
}

// SocketStatus describes one socket.
type SocketStatus struct {
	Name    string `json:"name,omitempty"` // of a named socket or a file
	Kind    string `json:"kind"`           // "listener", "packet" or "file"
	Network string `json:"network,omitempty"`
	Address string `json:"address,omitempty"` // the one it is bound to
	// Queue is the number of connections in the accept queue, Backlog the limit of that
	// queue, HalfOpen the number of handshakes that are under way on the address (members
	// of a SO_REUSEPORT group share it). -1 means unknown: the socket has no such number,
	// or is not among the first of very many sockets.
	Queue    int    `json:"queue"`
	Backlog  int    `json:"backlog"`
	HalfOpen int    `json:"half_open"`
	Accepted uint64 `json:"accepted"` // by this process
	// Stored says that systemd's descriptor store has the socket as well, so that it
	// outlives a crash of the process.
	Stored bool `json:"stored,omitempty"`
}

// Status describes the process as it is now. It asks the kernel about each
// listener; a number that it can't get is -1. After Shutdown there are no sockets.
func (u *Upgrader) Status() Status {
	c := u.conns.Counts()
	s := Status{
		Name: u.cfg.Name, PID: os.Getpid(), UID: os.Geteuid(),
		Version: u.cfg.Version, Build: readBuild(), Executable: u.cfg.program.Path, Mode: u.cfg.Mode,
		Started: u.started, Uptime: time.Since(u.started),
		Open: c.Open, Moved: c.Moved, Cut: c.Cut,
		Sockets:   u.socketStatus(),
		Flows:     u.flowStatus(),
		Lingering: u.predecessors.describe(),
	}
	for _, socket := range s.Sockets {
		s.Accepted += socket.Accepted
	}
	s.Received = u.inboxes.received.Load()
	if u.watcher != "" {
		s.NoUpgrade = u.watcher + ": " + outliveAdvice
	}
	u.history.status(&s)
	var life lifecycle.State
	u.owner.ask(func(st *state) {
		s.Generation, life = st.generation, st.life
		for _, text := range []string{st.elsewhere, st.lost} {
			if text != "" {
				s.Warnings = append(s.Warnings, text)
			}
		}
		if st.upgrade != nil {
			s.Upgrade = st.event
		}
	})
	s.State, s.Remaining = stateOf(life.Phase), -1
	if s.State == StateLingering || s.State == StateStopping {
		s.Remaining = u.remaining()
	}
	return s
}

func stateOf(p lifecycle.Phase) State {
	switch p {
	case lifecycle.Starting:
		return StateStarting
	case lifecycle.Probation, lifecycle.Serving:
		return StateServing
	case lifecycle.Lingering:
		return StateLingering
	case lifecycle.Stopping:
		return StateStopping
	}
	return StateClosed
}

// readBuild returns what the Go command has noted in this program
// ([runtime/debug.BuildInfo]): "path version revision modified, go".
func readBuild() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	built := []string{info.Path, info.Main.Version}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			built = append(built, s.Value[:min(12, len(s.Value))])
		case s.Key == "vcs.modified" && s.Value == "true":
			built = append(built, "modified")
		}
	}
	empty := func(s string) bool { return s == "" }
	text := strings.Join(slices.DeleteFunc(built, empty), " ")
	return strings.Join(slices.DeleteFunc([]string{text, info.GoVersion}, empty), ", ")
}

// socketStatus describes the sockets in use.
func (u *Upgrader) socketStatus() []SocketStatus {
	all := []SocketStatus{}
	for _, l := range u.table.Loads() {
		e := &l.Socket.Entry
		st := SocketStatus{
			Name: e.Name, Kind: kindName(e.Kind), Network: e.Network, Address: e.Bound,
			Queue: l.Queue, Backlog: l.Backlog, HalfOpen: l.HalfOpen, Stored: l.Socket.Stored() != "",
		}
		if ln := l.Socket.Listener; ln != nil {
			st.Accepted = ln.Accepted()
		}
		all = append(all, st)
	}
	return all
}

func kindName(k wire.SocketKind) string {
	switch k {
	case wire.KindListener:
		return "listener"
	case wire.KindPacket:
		return "packet"
	}
	return "file"
}
