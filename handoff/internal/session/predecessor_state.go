package session

import (
	"slices"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// predState is the predecessor's state machine. It is a value: next is pure.
type predState struct {
	phase     predPhase
	probation bool // there is a probation
	child     bool // this process started the successor, and may kill it
	killed    bool // this process has killed it
	unready   bool // the upgrade failed before Ready: the successor is killed unless Ready was on its way
	parting   bool // the successor was silent for too long: what it has sent until the hangup decides
	reason    failure.Reason
}

type predPhase uint8

const (
	predWaiting     predPhase = iota // for the successor to be welcomed
	predSending                      // sockets and state
	predWarming                      // the successor's program starts
	predProbation                    // the successor accepts, this process does not
	predConfirming                   // probation is over; the final Ping is sent
	predCommitting                   // Commit is sent
	predDoubting                     // no answer to Commit: this process accepts again, and waits for an answer or the successor's end
	predWithdrawing                  // this process accepts again; the successor has not confirmed
	predCommitted                    // the successor owns the sockets
	predEnded                        // this process owns the sockets
)

func (p predPhase) String() string {
	return [...]string{"waiting", "sending", "warming", "probation", "confirming", "committing", "doubting", "withdrawing", "committed", "ended"}[p]
}

// terminal reports whether the conversation up to commit is over.
func (p predPhase) terminal() bool { return p == predCommitted || p == predEnded }

type predEvent uint8

const (
	predHello         predEvent = iota // message Hello, and Welcome is sent
	predNoVersion                      // no common protocol version
	predVerified                       // message Verified
	predReady                          // message Ready
	predAlive                          // the answer to the last Ping
	predConfirmed                      // message Committed
	predAborted                        // message Abort
	predRolledBack                     // message RolledBack
	predTook                           // message Took
	predEngineReady                    // tableflip's child is ready: committed, with a conversation or without
	predGone                           // the conversation, or the process, has ended
	predTransferError                  // sockets or state could not be passed
	predUnsent                         // a message could not be sent, for a reason in this process
	predUnread                         // no message can be read, for a reason in this process
	predProtocolError                  // a message out of turn
	predDeadline                       // ready timeout
	predProbationOver                  // the probation's timer
	predSilent                         // no message for the hang timeout
	predCancel                         // the caller gives up, or an operator rolls back
	predLeave                          // this process ends, whatever the outcome of the upgrade
)

type predAction uint8

const (
	predTransfer     predAction = iota // send sockets and state
	predPause                          // stop accepting, send Paused
	predStartTrial                     // start the probation's timer
	predPing                           // send the final Ping
	predCommit                         // send Commit
	predResume                         // accept again
	predSendBack                       // send Rollback
	predKill                           // kill the successor's process
	predRelease                        // release the sockets
	predPauseQuietly                   // stop accepting without a message: the successor reads no more
	predHangup                         // take no message but those that have come: the successor can't send another
)

// fail ends the conversation before Ready has arrived: this process has never stopped
// serving, so there is nothing to resume.
func (s predState) fail(r failure.Reason) (predState, []predAction) {
	s.phase, s.reason = predEnded, r
	if s.child { // dead or not
		return s, []predAction{predKill}
	}
	return s, nil
}

// refuse is fail for a successor that gets Rollback. It opens its gate before it sends
// Ready, and may have accepted something by now; if this process was silent for too
// long, it may have taken the sockets. Its answer decides.
func (s predState) refuse(r failure.Reason) (predState, []predAction) {
	s.phase, s.reason, s.unready = predWithdrawing, r, true
	return s, []predAction{predSendBack}
}

// withdrawn ends the conversation with a successor that has confirmed Rollback, or has
// ended. One that was never ready is killed: its program may hang.
func (s predState) withdrawn() (predState, []predAction) {
	s.phase = predEnded
	if s.unready && s.child && !s.killed {
		return s, []predAction{predKill}
	}
	return s, nil
}

// back takes the sockets back from a successor that has given them up.
func (s predState) back(r failure.Reason) (predState, []predAction) {
	s.phase, s.reason = predEnded, r
	return s, []predAction{predResume}
}

// withdraw takes the sockets back from a successor that still serves them.
func (s predState) withdraw(r failure.Reason, kill bool) (predState, []predAction) {
	s.phase, s.reason = predWithdrawing, r
	acts := []predAction{predResume, predSendBack}
	if kill && s.child {
		s.killed = true
		acts = append(acts, predKill)
	}
	return s, acts
}

// part begins to end the conversation with a silent successor. Its last word may be on its
// way: it can have taken the sockets at this moment, because this process was silent for
// it. The hangup makes that definite: either the message is here, or it can't be sent, and
// the successor, which does not own the sockets before it has sent it, never will.
func (s predState) part() (predState, []predAction) {
	s.parting = true
	if s.phase != predWithdrawing { // else there is a reason already
		s.reason = failure.Hung
	}
	return s, []predAction{predHangup}
}

// whileParting reads what has come before the hangup.
func (s predState) whileParting(e predEvent) (predState, []predAction) {
	accepts := s.phase == predDoubting || s.phase == predWithdrawing
	switch e {
	case predConfirmed, predTook, predEngineReady:
		if accepts {
			return s.yield(predPauseQuietly)
		}
		return s.yield()
	case predLeave:
		return s.yield(predPauseQuietly) // as inDoubt
	case predReady:
		s.unready = false
	case predAborted, predRolledBack: // it has closed its sockets, and ends by itself
		s.killed = s.killed || !s.unready
		return s.parted(accepts)
	case predUnread:
		if !s.child { // what it has sent decides: this side reads again
			return s, nil
		}
		return s.parted(accepts)
	case predGone:
		return s.parted(accepts)
	}
	return s, nil
}

// parted ends the conversation with a successor that has not taken the sockets, and kills
// it, if it is a child. One that has read Commit may be about to write the PID file: it is
// killed first.
func (s predState) parted(accepts bool) (predState, []predAction) {
	var acts []predAction
	if !accepts {
		acts = append(acts, predResume)
	}
	if s.child && !s.killed {
		s.killed = true
		acts = append(acts, predKill)
		if s.phase == predCommitting {
			slices.Reverse(acts)
		}
	}
	s.phase = predEnded
	return s, acts
}

// yield leaves the sockets to a successor that has taken them.
func (s predState) yield(acts ...predAction) (predState, []predAction) {
	s.phase, s.reason = predCommitted, failure.None
	return s, append(acts, predRelease)
}

// next is the whole of the predecessor's side of the death table.
func (s predState) next(e predEvent) (predState, []predAction) {
	if s.parting && !s.phase.terminal() {
		return s.whileParting(e)
	}
	switch s.phase {
	case predWaiting, predSending, predWarming:
		return s.beforeReady(e)
	case predProbation, predConfirming:
		return s.inProbation(e)
	case predCommitting:
		return s.afterCommit(e)
	case predDoubting:
		return s.inDoubt(e)
	case predWithdrawing:
		return s.whileWithdrawing(e)
	}
	return s, nil // ended
}

func (s predState) beforeReady(e predEvent) (predState, []predAction) {
	switch e {
	case predHello:
		if s.phase == predWaiting {
			s.phase = predSending
			return s, []predAction{predTransfer}
		}
	case predNoVersion:
		return s.fail(failure.Version)
	case predVerified:
		if s.phase == predSending {
			s.phase = predWarming
			return s, nil
		}
	case predReady:
		if s.phase == predWarming {
			if s.probation {
				s.phase = predProbation
				return s, []predAction{predPause, predStartTrial}
			}
			s.phase = predCommitting
			return s, []predAction{predPause, predCommit}
		}
	case predEngineReady:
		return s.yield(predPauseQuietly)
	case predAborted:
		return s.fail(failure.Aborted)
	case predGone:
		return s.fail(failure.SuccessorDied)
	case predTransferError, predUnsent, predUnread:
		return s.refuse(failure.Transfer)
	case predDeadline:
		return s.giveUp(failure.Timeout)
	case predCancel:
		return s.giveUp(failure.RolledBack)
	case predSilent:
		if s.phase == predSending { // a batch was not acknowledged
			return s.giveUp(failure.Hung)
		}
		return s, nil
	case predProbationOver, predAlive, predLeave:
		return s, nil // timers of a phase that has not begun
	}
	return s.giveUp(failure.Protocol)
}

// giveUp ends the conversation with a successor that may not have come yet.
func (s predState) giveUp(r failure.Reason) (predState, []predAction) {
	if s.phase == predWaiting {
		return s.fail(r)
	}
	return s.refuse(r)
}

func (s predState) inProbation(e predEvent) (predState, []predAction) {
	switch e {
	case predProbationOver:
		if s.phase == predProbation {
			s.phase = predConfirming
			return s, []predAction{predPing}
		}
		return s, nil
	case predAlive:
		if s.phase == predConfirming {
			s.phase = predCommitting
			return s, []predAction{predCommit}
		}
		return s, nil
	case predTook, predEngineReady:
		return s.yield()
	case predAborted:
		return s.back(failure.Aborted)
	case predGone:
		return s.back(failure.SuccessorDied)
	case predSilent:
		if s.child {
			return s.part()
		}
		return s.withdraw(failure.Hung, false)
	case predCancel:
		return s.withdraw(failure.RolledBack, false)
	case predUnsent, predUnread:
		return s.withdraw(failure.Transfer, false)
	case predDeadline, predLeave:
		return s, nil
	}
	return s.withdraw(failure.Protocol, true)
}

func (s predState) afterCommit(e predEvent) (predState, []predAction) {
	switch e {
	case predConfirmed, predTook, predEngineReady:
		return s.yield()
	case predAborted: // it was sent before Commit was read
		return s.back(failure.Aborted)
	case predGone:
		return s.back(failure.SuccessorDied)
	case predUnsent: // the successor does not get Commit
		return s.withdraw(failure.Transfer, false)
	case predUnread: // its answer may be there
		s.phase = predDoubting
		return s, []predAction{predResume}
	case predSilent:
		// A child can be killed. Any other process reads Commit when it wakes up, or never.
		if s.child {
			return s.part()
		}
		s.phase = predDoubting
		return s, []predAction{predResume}
	}
	return s, nil
}

// inDoubt serves on until the successor answers Commit, or ends. There is no
// deadline: a decision without it could make two owners, or none. If this process
// ends, the successor finds Commit when it wakes up.
func (s predState) inDoubt(e predEvent) (predState, []predAction) {
	switch e {
	case predConfirmed, predTook, predEngineReady, predLeave:
		return s.yield(predPauseQuietly)
	case predAborted:
		s.phase, s.reason = predEnded, failure.Aborted
	case predGone:
		s.phase, s.reason = predEnded, failure.SuccessorDied
	case predSilent:
		if s.child {
			return s.part()
		}
	}
	return s, nil
}

// whileWithdrawing waits for the answer to Rollback. Where that can't be sent, the
// successor takes the sockets when it has heard nothing for too long, or reads the end
// of the conversation while this process runs.
func (s predState) whileWithdrawing(e predEvent) (predState, []predAction) {
	switch e {
	case predReady: // sent before Rollback was read: it serves what it has accepted
		s.unready = false
		return s, nil
	case predRolledBack, predAborted, predGone:
		return s.withdrawn()
	case predTook, predEngineReady:
		// It took the sockets before it read Rollback, and reads no more: this side
		// yields.
		return s.yield(predPauseQuietly)
	case predSilent:
		return s.part()
	}
	return s, nil
}
