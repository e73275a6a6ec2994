package lifecycle

// A Phase is a part of a process's life.
type Phase uint8

// The phases, in order.
const (
	Starting  Phase = iota // Ready has not been called
	Probation              // it accepts; its predecessor can still take the sockets back
	Serving                // it owns the sockets
	Lingering              // its successor owns the sockets; open connections are served to their end
	Stopping               // it ends without a successor; open connections are served to their end
	Closed                 // Shutdown has returned
)

func (p Phase) String() string {
	return [...]string{"starting", "probation", "serving", "lingering", "stopping", "closed"}[p]
}

// A Gate says what Accept, or a read of datagrams, does.
type Gate uint8

// The states of the gate.
const (
	Paused Gate = iota // calls wait
	Open               // calls pass
	Shut               // calls return net.ErrClosed, for good
)

func (g Gate) String() string { return [...]string{"paused", "open", "shut"}[g] }

// State is where a process stands. The zero State is that of the first process of
// a line before Ready.
type State struct {
	Phase Phase
	Gate  Gate
	// Joined says that a predecessor has passed on its sockets, and has not
	// committed.
	Joined bool
	// Owner says that this process owns the sockets, or was the last to own them:
	// paths and the PID file are its own to remove.
	Owner bool
	// Upgrading says that an upgrade is under way, in which this process is the
	// predecessor.
	Upgrading bool
	// Announced says that a stop has begun and waits for the program: the process serves
	// on, and begins no upgrade.
	Announced bool
	// Expired says that the linger is over: open connections get no more time.
	Expired bool
	// Shutdown says that the program has called Shutdown.
	Shutdown bool
}

// Done reports whether the process is to end.
func (s State) Done() bool { return s.Phase >= Lingering }

// An Event is what happens to a process.
type Event uint8

// The events.
const (
	Join     Event = iota // a predecessor has passed on its sockets
	Ready                 // the program of a first process is ready
	Start                 // the program of a successor is ready: the conversation opens the gate
	Own                   // the predecessor has committed, or has ended
	Leave                 // the successor gives the sockets back; Quit follows
	Quit                  // the conversation has ended without a commit
	Begin                 // an upgrade is to begin
	Pause                 // the successor is ready: it accepts from now on
	Resume                // the successor gives the sockets back
	Commit                // the successor owns the sockets
	Fail                  // the upgrade has ended without a commit
	Announce              // a stop waits for the program
	Stop                  // a signal, an operator or the program ends the service
	Expire                // the linger limit has passed, or the linger is cut short
	Shutdown              // the program calls Shutdown
	Close                 // Shutdown has released everything
)

// An Action is what the owner of the state does after an event, in the order in
// which Next returns them.
type Action uint8

// The actions.
const (
	OpenGate    Action = iota // let Accept return connections
	PauseGate                 // make Accept wait
	ShutGate                  // make Accept fail for good
	Abort                     // ask the conversation with the predecessor to end; Quit or Own follows
	GiveUp                    // ask the conversation with the successor to end; Fail or Commit follows
	Prepare                   // have the program prepare the stop
	CloseDone                 // tell the program to end
	StartLinger               // start the linger's clock
	CutOff                    // close connections that are still open
)
