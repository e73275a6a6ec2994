package reuseport

import "time"

// Strategy is a way to leave a group.
type Strategy string

const (
	// StrategySteer: a program steers new connections to the other members;
	// when the handshakes that were under way are over and the queue is
	// served, the member closes. Nothing can be lost. It needs no privilege.
	StrategySteer Strategy = "steer"

	// StrategySteerMigrate: the same where net.ipv4.tcp_migrate_req is 1. The
	// member waits for handshakes for a second at most; the kernel moves those
	// that last longer to another member.
	StrategySteerMigrate Strategy = "steer, migrate"

	// StrategyMigrate: net.ipv4.tcp_migrate_req is 1 and steering failed. The
	// kernel moves queue and handshakes; a SYN that arrives in the moment of
	// the close can be lost.
	StrategyMigrate Strategy = "migrate"

	// StrategyStopQueueing: a filter on the member makes the kernel ignore new
	// connections, which their clients repeat; see [StopQueueing]. It is what
	// a lone member does where the privilege is there. Nothing can be lost as
	// long as another process listens afterwards.
	StrategyStopQueueing Strategy = "stop queueing"

	// StrategyHide: the listener was bound to a network interface that no machine
	// has, so that the kernel refuses new connections; when the handshakes that were
	// under way are over and the queue is served, it closes. It is what [Move] does
	// without own sockets. Nothing can be lost. It needs no privilege (Linux 5.7).
	StrategyHide Strategy = "hide"

	// StrategyBestEffort: what was queued or half-open at the start is served,
	// then the member closes. What arrives in the moment of the close is
	// lost. It is what a lone member does without privilege: without another
	// member, the next connection would have been refused anyway. It is also
	// the name where the time was up before anything was done: the member
	// closes at once.
	StrategyBestEffort Strategy = "best effort"
)

// Report says how members left their group.
type Report struct {
	// Strategy is the weakest that was used, empty if nothing had to be done.
	Strategy Strategy `json:"strategy"`
	// Members is the number of members that have left.
	Members int `json:"members"`
	// Last is true if no other member was there to get the traffic.
	Last bool `json:"last"`
	// WaitedFor names what showed that nothing was left.
	WaitedFor string `json:"waited_for"`

	// HalfOpen is the number of handshakes that were under way when new
	// connections had been turned away. If the kernel tells only the number of
	// the whole group, it is that.
	HalfOpen int `json:"half_open"`
	// Accepted counts connections that came out of Accept meanwhile; for UDP,
	// datagrams read.
	Accepted int64 `json:"accepted"`
	// Left counts handshakes and queued connections at the end of the time
	// (ErrIncomplete). They are lost, except where the kernel moves them:
	// StrategySteerMigrate and StrategyMigrate. For UDP it is the number of sockets with something unread.
	Left int `json:"left"`

	// Duration is the time from the call to the end, Queued the part of it that
	// was spent behind others that steer the group or leave it, and Settle that
	// between the end of the last handshake, or the last Accept, and the
	// close.
	Duration time.Duration `json:"duration"`
	Queued   time.Duration `json:"queued"`
	Settle   time.Duration `json:"settle"`

	// LossPossible is true if a connection may have been lost. Reason then says
	// why; else it says why no better strategy was used, if one exists.
	LossPossible bool   `json:"loss_possible"`
	Reason       string `json:"reason,omitempty"`
}

// note adds a reason.
func (r *Report) note(text string) {
	if r.Reason != "" {
		r.Reason += "; "
	}
	r.Reason += text
}
