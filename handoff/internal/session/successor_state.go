package session

// succState is the successor's state machine, from Verified on. It is a value: next is
// pure.
type succState struct {
	phase succPhase
	alone bool // the predecessor has ended, or is silent
}

type succPhase uint8

const (
	succWarming   succPhase = iota // has the sockets, is not ready
	succProbation                  // has sent Ready
	succOwner                      // committed
	succQuit                       // aborted or rolled back
)

func (p succPhase) String() string {
	return [...]string{"warming", "probation", "owner", "quit"}[p]
}

type succEvent uint8

const (
	succReady    succEvent = iota // the program is ready
	succAbort                     // the program gives up, or its health check failed
	succPing                      // message Ping, health check passed
	succCommit                    // message Commit
	succRollback                  // message Rollback or Refuse
	succGone                      // the conversation has ended
	succSilent                    // no message for the hang timeout
)

type succAction uint8

const (
	succOpen           succAction = iota // open the Accept gate
	succShut                             // close it for good
	succSendReady                        // send Ready
	succSendAlive                        // send Alive
	succSendCommitted                    // send Committed
	succSendAbort                        // send Abort
	succSendRolledBack                   // send RolledBack
	succSendTook                         // send Took
	succOwn                              // the sockets are this process's
)

// next is the whole of the successor's side of the death table.
func (s succState) next(e succEvent) (succState, []succAction) {
	switch s.phase {
	case succWarming:
		switch e {
		case succReady:
			if s.alone {
				s.phase = succOwner
				return s, []succAction{succOpen, succOwn}
			}
			s.phase = succProbation
			return s, []succAction{succOpen, succSendReady}
		case succAbort:
			s.phase = succQuit
			if s.alone {
				return s, []succAction{succShut}
			}
			return s, []succAction{succShut, succSendAbort}
		case succRollback:
			s.phase = succQuit
			return s, []succAction{succShut, succSendRolledBack}
		case succGone:
			s.alone = true
		}
	case succProbation:
		switch e {
		case succAbort:
			s.phase = succQuit
			return s, []succAction{succShut, succSendAbort}
		case succPing:
			return s, []succAction{succSendAlive}
		case succCommit:
			s.phase = succOwner
			return s, []succAction{succOwn, succSendCommitted}
		case succRollback:
			s.phase = succQuit
			return s, []succAction{succShut, succSendRolledBack}
		case succGone:
			s.phase, s.alone = succOwner, true
			return s, []succAction{succOwn}
		case succSilent:
			s.phase, s.alone = succOwner, true
			return s, []succAction{succSendTook, succOwn}
		}
	}
	// An owner ignores what follows (a Rollback that crossed Took comes too late), and
	// so does a successor that has quit.
	return s, nil
}
