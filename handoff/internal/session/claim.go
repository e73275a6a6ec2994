package session

// claim is the successor's state machine, from Verified on. It is a value: next is
// pure.
type claim struct {
	phase claimPhase
	alone bool // the predecessor has ended, or is silent
}

type claimPhase uint8

const (
	claimWarming   claimPhase = iota // has the sockets, is not ready
	claimProbation                   // has sent Ready
	claimOwner                       // committed
	claimQuit                        // aborted or rolled back
)

func (p claimPhase) String() string {
	return [...]string{"warming", "probation", "owner", "quit"}[p]
}

type claimEvent uint8

const (
	claimReady    claimEvent = iota // the program is ready
	claimAbort                      // the program gives up, or its health check failed
	claimPing                       // message Ping, health check passed
	claimCommit                     // message Commit
	claimRollback                   // message Rollback or Refuse
	claimGone                       // the conversation has ended
	claimSilent                     // no message for the hang timeout
)

type claimAction uint8

const (
	claimOpen           claimAction = iota // open the Accept gate
	claimShut                              // close it for good
	claimSendReady                         // send Ready
	claimSendAlive                         // send Alive
	claimSendCommitted                     // send Committed
	claimSendAbort                         // send Abort
	claimSendRolledBack                    // send RolledBack
	claimSendTook                          // send Took
	claimOwn                               // the sockets are this process's
)

// next is the whole of the successor's side of the death table.
func (c claim) next(e claimEvent) (claim, []claimAction) {
	switch c.phase {
	case claimWarming:
		switch e {
		case claimReady:
			if c.alone {
				c.phase = claimOwner
				return c, []claimAction{claimOpen, claimOwn}
			}
			c.phase = claimProbation
			return c, []claimAction{claimOpen, claimSendReady}
		case claimAbort:
			c.phase = claimQuit
			if c.alone {
				return c, []claimAction{claimShut}
			}
			return c, []claimAction{claimShut, claimSendAbort}
		case claimRollback:
			c.phase = claimQuit
			return c, []claimAction{claimShut, claimSendRolledBack}
		case claimGone:
			c.alone = true
		}
	case claimProbation:
		switch e {
		case claimAbort:
			c.phase = claimQuit
			return c, []claimAction{claimShut, claimSendAbort}
		case claimPing:
			return c, []claimAction{claimSendAlive}
		case claimCommit:
			c.phase = claimOwner
			return c, []claimAction{claimOwn, claimSendCommitted}
		case claimRollback:
			c.phase = claimQuit
			return c, []claimAction{claimShut, claimSendRolledBack}
		case claimGone:
			c.phase, c.alone = claimOwner, true
			return c, []claimAction{claimOwn}
		case claimSilent:
			c.phase, c.alone = claimOwner, true
			return c, []claimAction{claimSendTook, claimOwn}
		}
	}
	// An owner ignores what follows (a Rollback that crossed Took comes too late), and
	// so does a successor that has quit.
	return c, nil
}
