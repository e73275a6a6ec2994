package handoff

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff/internal/inherit"
	"github.com/seed-11c92bf9/baton/handoff/internal/signals"
	"github.com/seed-11c92bf9/baton/handoff/internal/spawn"
	"github.com/seed-11c92bf9/baton/handoff/internal/systemd"
)

// The defaults of [Config].
const (
	DefaultReadyTimeout  = time.Minute
	DefaultProbation     = 2 * time.Second
	DefaultLingerTimeout = 30 * time.Second
	DefaultMaxLingering  = 4
)

// hangTimeout is the silence after which a peer counts as hung. Only newConfig reads it,
// and only tests change it.
var hangTimeout = 5 * time.Second

// Config says how a server is replaced. The zero value of each field gives its
// default. New copies what it needs.
type Config struct {
	// Mode is the way in which a successor of this process gets the sockets.
	// The predecessor's mode decides in which way this process gets them, so that
	// an upgrade can change the mode. Zero is Takeover where there is a Name or a
	// ControlSocket, and Inherit otherwise.
	Mode Mode

	// Name names the service. Its control socket is
	// /run/baton/NAME/control.sock for root and
	// $XDG_RUNTIME_DIR/baton/NAME/control.sock for others (without
	// XDG_RUNTIME_DIR: baton-UID/NAME/control.sock in [os.TempDir]).
	// Takeover and Drain need a Name or a ControlSocket. Inherit without either has
	// no control socket. Both sides of a request or an upgrade compare the Name.
	Name string
	// ControlSocket is the path of the control socket, instead of the one that
	// comes from Name. New creates its folder with mode 0700 if it is missing. A
	// folder that exists must belong to this user or to root and have no permissions
	// for others; those above it must belong to this user or to root, and others must
	// not be able to write into them, unless they are root's and sticky. The service
	// leaves a file with the suffix ".lock" in it.
	ControlSocket string

	// Version describes this build to the other side, in reports and in
	// status. It has no effect on anything else.
	Version string

	// Executable is the program that an upgrade starts. Empty means the path by which
	// this process was started: New resolves os.Args[0], so that the new version is the
	// file that has replaced this program there. If os.Args[0] is not such a path (exec
	// -a, ExecStart=@), it is the path of the running file. Takeover and Drain only.
	Executable string
	// Args are the arguments of the successor, without the program's name. nil
	// means os.Args[1:]. Takeover and Drain only.
	Args []string
	// Dir is the working directory of the successor. Empty means the working directory
	// of this process when it calls New, by the path that led there: $PWD, or a folder in
	// os.Args[0]. If that path leads through a link to the newest release, the successor
	// starts in that release. Takeover and Drain only: in Inherit it is $PWD.
	Dir string
	// Env is the environment of the successor, as in [os/exec.Cmd]. nil means the
	// environment that this process was started with, without what the program has set
	// since. Takeover and Drain only: in Inherit it is the environment that this process
	// has when the upgrade starts.
	Env []string

	// ListenConfig is used for each socket that this process binds. Its keep-alive
	// settings apply to the connections of all listeners, inherited ones included. nil
	// means the zero ListenConfig.
	ListenConfig *net.ListenConfig

	// ReadyTimeout bounds the time from the start of a successor to its Ready.
	// Zero means DefaultReadyTimeout, negative no limit. On timeout the predecessor
	// rolls back. A successor that does not acknowledge the rollback within the hang
	// timeout of 5 s is killed.
	ReadyTimeout time.Duration
	// Probation is the time after the successor's Ready in which the predecessor can
	// still take its sockets back. It does so if the successor dies, hangs or fails its
	// health check, or if either process calls Abort. Zero means DefaultProbation,
	// negative no probation. The predecessor's value applies.
	Probation time.Duration
	// LingerTimeout bounds the time that open connections get after commit or
	// after a stop signal. Zero means DefaultLingerTimeout, negative no limit.
	LingerTimeout time.Duration
	// MaxLingering is the number of predecessors that may linger at once; the
	// oldest ends first. Zero means DefaultMaxLingering, negative no limit. In
	// mode Inherit at most one can.
	MaxLingering int

	// Supervised says that the process that started this one keeps running after this
	// one has ended. tini, dumb-init, catatonit (docker run --init) and shell scripts do
	// not: as PID 1 of a container they end with the process that they started, and the
	// kernel kills the container. So in a container, without Supervised, Upgrade returns
	// ErrUnsupported if this process is PID 1, or if PID 1 has started it, directly or
	// through a shell, and PID 1 is no supervisor that package handoff knows.
	Supervised bool

	// RequireAll makes Ready return ErrMismatch, and the upgrade fail, if the program has
	// not opened all addresses that its predecessor serves. Without it the predecessor
	// leaves the sockets of the other addresses at the commit, and the report names them.
	// The successor's value applies.
	RequireAll bool

	// PIDFile is a file that holds the process ID of the process that serves. The
	// successor replaces it atomically at the commit. A predecessor that takes its
	// sockets back writes it again, and the last process removes it. The successor's
	// Ready writes .NAME.next in the same folder, where NAME is the file's name, so that
	// on a full disk the upgrade fails before the commit. Empty means none.
	PIDFile string

	// NoSystemd keeps this process from taking sockets from systemd, and from sending
	// messages to it. Without it, Listen, ListenPacket and their variants return the
	// sockets that systemd has passed on (LISTEN_FDS, sd_listen_fds(3)). ListenNamed and
	// ListenPacketNamed find a socket by its FileDescriptorName, the others by its
	// address. The process that serves closes those that its program has not opened.
	// New returns ErrUnsupported if the mode can't pass such a socket to a successor:
	// Drain passes on none of them, Inherit no unix socket that has a path.
	//
	// If NOTIFY_SOCKET is set (Type=notify or notify-reload), this process sends the
	// messages of sd_notify(3): the service is ready; an upgrade begins or ends, as a
	// reload; another process is the main process, before the old one ends; the service
	// stops, and needs more time while connections are open; for a watchdog, the process
	// is alive.
	NoSystemd bool

	// NoStore keeps this process from putting its sockets into systemd's descriptor
	// store. Without it, the process that serves puts its listeners and datagram sockets
	// there, if the service has a store: systemd sets FDSTORE then, from version 254 on
	// (with an older one, set it in the unit beside FileDescriptorStoreMax=). After a
	// crash, or `systemctl restart`, the next process gets the sockets from Listen,
	// ListenPacket and their variants, with everything that waits in them. It must ask
	// for the same network, address and name; otherwise Listen binds a new socket. The
	// process that serves closes those that its program has not opened. EventStored and
	// Status say what is stored.
	//
	// A socket leaves the store when the program closes it. Shutdown leaves the store as
	// it is, and leaves the path of a unix socket that is in it. systemd empties the
	// store when the service stops for good. With FileDescriptorStorePreserve=yes
	// (systemd 254) it empties the store when it forgets the unit, as it may when the
	// unit has stopped and no other unit refers to it (systemd.service(5)).
	//
	// The store does not get files, and sockets of a socket unit, which systemd keeps
	// anyway. In mode Drain it gets no TCP and UDP sockets: after a crash, a stored member
	// of a group would get connections that no process accepts and that another instance
	// could serve; and it could not leave its group while systemd has it as well.
	NoStore bool

	// UpgradeSignals start an upgrade. nil means SIGUSR2, empty but not nil none. A
	// signal that the process ignores when New is called stays ignored: SIGINT in the
	// background of a shell script, SIGHUP below nohup.
	UpgradeSignals []os.Signal
	// StopSignals end the service gracefully: Done is closed. The first one has no
	// effect on a process that lingers; a second one ends the linger, or the wait for a
	// function of BeforeStop. nil means
	// SIGTERM and SIGINT, empty but not nil none. Ignored ones stay ignored.
	StopSignals []os.Signal

	// Allow decides about processes that have neither the uid of this process nor root's:
	// those that connect to the control socket, and the predecessor that this process
	// joins. In a user namespace that does not map all users, the overflow uid (65534)
	// never counts as that of this process. A process that Allow allows may make each
	// request of package control, but may not choose the program or the environment of
	// an upgrade. nil allows none. The goroutine that serves the connection calls it.
	Allow func(Peer) bool

	// Healthy is the health check of a successor in probation. The successor calls it
	// before each answer to a ping of the predecessor; the last ping comes right before
	// the commit. An error aborts the upgrade. Healthy is called from a goroutine of its
	// own, and must return when its context ends. That is after 4 s, because after 5 s
	// the predecessor counts the successor as hung. nil means healthy.
	Healthy func(ctx context.Context) error

	// OnEvent is called with each event, in order, from one goroutine of the
	// Upgrader. It may block: an upgrade does not wait for it. Shutdown waits until
	// OnEvent has returned from the last event. OnEvent may call Shutdown itself, but
	// must not wait for another goroutine that does.
	OnEvent func(Event)

	// Logger gets a line for each step. SlogLogger makes one of a *slog.Logger. nil
	// means one line to standard error for each upgrade that was committed or has
	// failed, and for a Ready that is not called within ReadyTimeout;
	// hclog.NewNullLogger() discards these, too.
	Logger hclog.Logger
}

// Peer is the process at the other end of a control socket, as the kernel
// names it (SO_PEERCRED, unix(7)).
type Peer struct {
	PID int // 0 if it is not in the PID namespace of this process
	UID int
	GID int
}

// config is a Config that was checked, with its defaults filled in.
type config struct {
	Config
	program      spawn.Program // the next version of this one
	pidFile      string
	notices      bool          // there is no Logger
	hang         time.Duration // the silence after which a peer counts as hung
	listenConfig net.ListenConfig
}

// newConfig copies, checks and completes c.
func newConfig(c *Config) (*config, error) {
	cfg := &config{hang: hangTimeout}
	if c != nil {
		cfg.Config = *c
	}
	if cfg.ListenConfig != nil {
		cfg.listenConfig = *cfg.ListenConfig
	}
	if cfg.Mode == "" {
		cfg.Mode = Inherit
		if cfg.Name != "" || cfg.ControlSocket != "" {
			cfg.Mode = Takeover
		}
	}
	cfg.ReadyTimeout = cmp.Or(cfg.ReadyTimeout, DefaultReadyTimeout)
	cfg.Probation = cmp.Or(cfg.Probation, DefaultProbation)
	cfg.LingerTimeout = cmp.Or(cfg.LingerTimeout, DefaultLingerTimeout)
	cfg.MaxLingering = cmp.Or(cfg.MaxLingering, DefaultMaxLingering)
	if cfg.UpgradeSignals == nil {
		cfg.UpgradeSignals = signals.DefaultUpgrade()
	}
	if cfg.StopSignals == nil {
		cfg.StopSignals = []os.Signal{syscall.SIGTERM, os.Interrupt}
	}
	if cfg.Logger == nil {
		cfg.Logger, cfg.notices = hclog.NewNullLogger(), true
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("handoff: config: %w", err)
	}
	var err error
	if cfg.Env == nil {
		cfg.Env = spawn.Environment(append(systemd.ListenVariables(), inherit.Variable)...)
	}
	if cfg.program, err = spawn.Resolve(cfg.Executable, cfg.Args, cfg.Dir, cfg.Env); err != nil {
		return nil, fmt.Errorf("handoff: %w", err)
	}
	cfg.program.Given = spawn.Given(spawned())
	if cfg.PIDFile != "" {
		if cfg.pidFile, err = filepath.Abs(cfg.PIDFile); err != nil {
			return nil, fmt.Errorf("handoff: PID file: %w", err)
		}
	}
	return cfg, nil
}

func (cfg *config) check() error {
	switch cfg.Mode {
	case Inherit:
		if cfg.Executable != "" || cfg.Args != nil || cfg.Dir != "" || cfg.Env != nil {
			return fmt.Errorf("%w: Executable, Args, Dir and Env: tableflip starts os.Args again; use Takeover", ErrUnsupported)
		}
	case Takeover, Drain:
		if cfg.Name == "" && cfg.ControlSocket == "" {
			return fmt.Errorf("mode %v needs Name or ControlSocket, for a successor to find", cfg.Mode)
		}
	default:
		return fmt.Errorf("%w: mode %q: the modes are %q", ErrUnsupported, cfg.Mode, modes[1:])
	}
	if strings.ContainsAny(cfg.Name, "/\x00") || cfg.Name == "." || cfg.Name == ".." {
		return fmt.Errorf("name %q can't be the name of a folder", cfg.Name)
	}
	return nil
}

// supported reports why no mode works on this system, or nil.
func supported() error {
	if runtime.GOOS == "linux" {
		return nil
	}
	return fmt.Errorf("%w on %s: Linux is", ErrUnsupported, runtime.GOOS)
}

// upgradeTimeout bounds an upgrade up to its commit, with time for a peer that hangs;
// the longest Duration is no bound.
func (cfg *config) upgradeTimeout() time.Duration {
	if cfg.ReadyTimeout < 0 {
		return math.MaxInt64
	}
	return cfg.ReadyTimeout + max(cfg.Probation, 0) + 4*cfg.hang
}
