package session

import "github.com/seed-11c92bf9/baton/handoff/internal/failure"

// offer is the predecessor's state machine. It is a value: next is pure.
type offer struct {
	phase     offerPhase
	probation bool // there is a probation
	child     bool // this process started the successor, and may kill it
	killed    bool // this process has killed it
	unready   bool // the upgrade failed before Ready: the successor is killed unless Ready was on its way
	reason    failure.Reason
}

type offerPhase uint8

const (
	offerWaiting     offerPhase = iota // for the successor to be welcomed
	offerSending                       // sockets and state
	offerWarming                       // the successor's program starts
	offerProbation                     // the successor accepts, this process does not
	offerConfirming                    // probation is over; the final Ping is sent
	offerCommitting                    // Commit is sent
	offerDoubting                      // no answer to Commit: this process accepts again, and waits for an answer or the successor's end
	offerWithdrawing                   // this process accepts again; the successor has not confirmed
	offerCommitted                     // the successor owns the sockets
	offerEnded                         // this process owns the sockets
)

func (p offerPhase) String() string {
	return [...]string{"waiting", "sending", "warming", "probation", "confirming", "committing", "doubting", "withdrawing", "committed", "ended"}[p]
}

// terminal reports whether the conversation up to commit is over.
func (p offerPhase) terminal() bool { return p == offerCommitted || p == offerEnded }

type offerEvent uint8

const (
	offerHello         offerEvent = iota // message Hello, and Welcome is sent
	offerNoVersion                       // no common protocol version
	offerVerified                        // message Verified
	offerReady                           // message Ready
	offerAlive                           // the answer to the last Ping
	offerConfirmed                       // message Committed
	offerAborted                         // message Abort
	offerRolledBack                      // message RolledBack
	offerTook                            // message Took
	offerEngineReady                     // tableflip's child is ready: committed, with a conversation or without
	offerGone                            // the conversation, or the process, has ended
	offerTransferError                   // sockets or state could not be passed
	offerProtocolError                   // a message out of turn
	offerDeadline                        // ready timeout
	offerProbationOver                   // the probation's timer
	offerSilent                          // no message for the hang timeout
	offerCancel                          // the caller gives up, or an operator rolls back
	offerLeave                           // this process ends, whatever the outcome of the upgrade
)

type offerAction uint8

const (
	offerTransfer     offerAction = iota // send sockets and state
	offerPause                           // stop accepting, send Paused
	offerStartTrial                      // start the probation's timer
	offerPing                            // send the final Ping
	offerCommit                          // send Commit
	offerResume                          // accept again
	offerSendBack                        // send Rollback
	offerKill                            // kill the successor's process
	offerRelease                         // release the sockets
	offerPauseQuietly                    // stop accepting without a message: the successor reads no more
)

// fail ends the conversation before Ready has arrived: this process has never stopped
// serving, so there is nothing to resume.
func (o offer) fail(r failure.Reason) (offer, []offerAction) {
	o.phase, o.reason = offerEnded, r
	if o.child { // dead or not
		return o, []offerAction{offerKill}
	}
	return o, nil
}

// refuse is fail for a successor that gets Rollback. It opens its gate before it sends
// Ready, and may have accepted something by now; if this process was silent for too
// long, it may have taken the sockets. Its answer decides.
func (o offer) refuse(r failure.Reason) (offer, []offerAction) {
	o.phase, o.reason, o.unready = offerWithdrawing, r, true
	return o, []offerAction{offerSendBack}
}

// withdrawn ends the conversation with a successor that has confirmed Rollback, or has
// ended. One that was never ready is killed: its program may hang.
func (o offer) withdrawn() (offer, []offerAction) {
	o.phase = offerEnded
	if o.unready && o.child && !o.killed {
		return o, []offerAction{offerKill}
	}
	return o, nil
}

// back takes the sockets back from a successor that has given them up.
func (o offer) back(r failure.Reason) (offer, []offerAction) {
	o.phase, o.reason = offerEnded, r
	return o, []offerAction{offerResume}
}

// withdraw takes the sockets back from a successor that still serves them.
func (o offer) withdraw(r failure.Reason, kill bool) (offer, []offerAction) {
	o.phase, o.reason = offerWithdrawing, r
	acts := []offerAction{offerResume, offerSendBack}
	if kill && o.child {
		o.killed = true
		acts = append(acts, offerKill)
	}
	return o, acts
}

// yield leaves the sockets to a successor that has taken them.
func (o offer) yield(acts ...offerAction) (offer, []offerAction) {
	o.phase, o.reason = offerCommitted, failure.None
	return o, append(acts, offerRelease)
}

// next is the whole of the predecessor's side of the death table.
func (o offer) next(e offerEvent) (offer, []offerAction) {
	switch o.phase {
	case offerWaiting, offerSending, offerWarming:
		return o.beforeReady(e)
	case offerProbation, offerConfirming:
		return o.inProbation(e)
	case offerCommitting:
		return o.afterCommit(e)
	case offerDoubting:
		return o.inDoubt(e)
	case offerWithdrawing:
		return o.whileWithdrawing(e)
	}
	return o, nil // ended
}

func (o offer) beforeReady(e offerEvent) (offer, []offerAction) {
	switch e {
	case offerHello:
		if o.phase == offerWaiting {
			o.phase = offerSending
			return o, []offerAction{offerTransfer}
		}
	case offerNoVersion:
		return o.fail(failure.Version)
	case offerVerified:
		if o.phase == offerSending {
			o.phase = offerWarming
			return o, nil
		}
	case offerReady:
		if o.phase == offerWarming {
			if o.probation {
				o.phase = offerProbation
				return o, []offerAction{offerPause, offerStartTrial}
			}
			o.phase = offerCommitting
			return o, []offerAction{offerPause, offerCommit}
		}
	case offerEngineReady:
		return o.yield(offerPauseQuietly)
	case offerAborted:
		return o.fail(failure.Aborted)
	case offerGone:
		return o.fail(failure.SuccessorDied)
	case offerTransferError:
		return o.refuse(failure.Transfer)
	case offerDeadline:
		return o.giveUp(failure.Timeout)
	case offerCancel:
		return o.giveUp(failure.RolledBack)
	case offerSilent:
		if o.phase == offerSending { // a batch was not acknowledged
			return o.giveUp(failure.Hung)
		}
		return o, nil
	case offerProbationOver, offerAlive, offerLeave:
		return o, nil // timers of a phase that has not begun
	}
	return o.giveUp(failure.Protocol)
}

// giveUp ends the conversation with a successor that may not have come yet.
func (o offer) giveUp(r failure.Reason) (offer, []offerAction) {
	if o.phase == offerWaiting {
		return o.fail(r)
	}
	return o.refuse(r)
}

func (o offer) inProbation(e offerEvent) (offer, []offerAction) {
	switch e {
	case offerProbationOver:
		if o.phase == offerProbation {
			o.phase = offerConfirming
			return o, []offerAction{offerPing}
		}
		return o, nil
	case offerAlive:
		if o.phase == offerConfirming {
			o.phase = offerCommitting
			return o, []offerAction{offerCommit}
		}
		return o, nil
	case offerTook, offerEngineReady:
		return o.yield()
	case offerAborted:
		return o.back(failure.Aborted)
	case offerGone:
		return o.back(failure.SuccessorDied)
	case offerSilent:
		return o.withdraw(failure.Hung, true)
	case offerCancel:
		return o.withdraw(failure.RolledBack, false)
	case offerDeadline, offerLeave:
		return o, nil
	}
	return o.withdraw(failure.Protocol, true)
}

func (o offer) afterCommit(e offerEvent) (offer, []offerAction) {
	switch e {
	case offerConfirmed, offerTook, offerEngineReady:
		return o.yield()
	case offerAborted: // it was sent before Commit was read
		return o.back(failure.Aborted)
	case offerGone:
		if o.killed {
			return o.back(failure.Hung) // it was killed because it hung
		}
		return o.back(failure.SuccessorDied)
	case offerSilent:
		// The death of a child, which can be killed, decides; it is the next event.
		// Any other process reads Commit when it wakes up, or never.
		switch {
		case !o.child:
			o.phase = offerDoubting
			return o, []offerAction{offerResume}
		case !o.killed:
			o.killed = true
			return o, []offerAction{offerKill}
		}
		return o.back(failure.Hung)
	}
	return o, nil
}

// inDoubt serves on until the successor answers Commit, or ends. There is no
// deadline: a decision without it could make two owners, or none. If this process
// ends, the successor finds Commit when it wakes up.
func (o offer) inDoubt(e offerEvent) (offer, []offerAction) {
	switch e {
	case offerConfirmed, offerTook, offerEngineReady, offerLeave:
		return o.yield(offerPauseQuietly)
	case offerAborted:
		o.phase, o.reason = offerEnded, failure.Aborted
	case offerGone:
		o.phase, o.reason = offerEnded, failure.SuccessorDied
	}
	return o, nil
}

func (o offer) whileWithdrawing(e offerEvent) (offer, []offerAction) {
	switch e {
	case offerReady: // sent before Rollback was read: it serves what it has accepted
		o.unready = false
		return o, nil
	case offerRolledBack, offerAborted, offerGone:
		return o.withdrawn()
	case offerTook, offerEngineReady:
		// It took the sockets before it read Rollback, and reads no more: this side
		// yields.
		return o.yield(offerPauseQuietly)
	case offerSilent:
		if o.child && !o.killed {
			o.killed = true
			return o, []offerAction{offerKill}
		}
		o.phase = offerEnded
		return o, nil
	}
	return o, nil
}
