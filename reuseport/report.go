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
	// connections, which their clients repeat; see [StopQueueing]. A member that is alone
	// uses it if the process has the privilege. Nothing is lost if another process
	// listens afterwards.
	StrategyStopQueueing Strategy = "stop queueing"

	// StrategyHide: the listener was bound to a network interface that no machine
	// has, so that the kernel refuses new connections; when the handshakes that were
	// under way are over and the queue is served, it closes. It is what [Move] does
	// without own sockets. Nothing can be lost. It needs no privilege (Linux 5.7).
	StrategyHide Strategy = "hide"

	// StrategyBestEffort: what was queued or half-open at the start is served, then the
	// member closes. A connection that arrives in the moment of the close is lost. A
	// member that is alone uses it without the privilege: the kernel would have refused
	// the next connection anyway. It is also the strategy if the context ended before the
	// first step: the member closes at once.
	StrategyBestEffort Strategy = "best effort"
)

// Report says how members left their group.
type Report struct {
	// Strategy is the weakest strategy of all members, empty if there was none to remove.
	Strategy Strategy `json:"strategy"`
	// Members is the number of members that have left.
	Members int `json:"members"`
	// Last is true if the group had no other member, which could get the new connections.
	Last bool `json:"last"`
	// WaitedFor names the measurement that showed that no connection was left.
	WaitedFor string `json:"waited_for"`

	// HalfOpen is the number of handshakes that were under way when new connections began
	// to go elsewhere. If the kernel reports only the number of the whole group, it is
	// that number.
	HalfOpen int `json:"half_open"`
	// Accepted counts the connections that Accept returned meanwhile; for UDP, the
	// datagrams read.
	Accepted int64 `json:"accepted"`
	// Left counts the handshakes and queued connections when the context ended
	// ([ErrIncomplete]). They are lost, unless the kernel moves them
	// ([StrategySteerMigrate], [StrategyMigrate]). For UDP it is the number of sockets
	// with unread datagrams.
	Left int `json:"left"`

	// Duration is the time from the call to its return. Queued is the part of it in which
	// the call waited for others that steered or left the group. Settle is the part
	// between the end of the last handshake, or the last Accept, and the close.
	Duration time.Duration `json:"duration"`
	Queued   time.Duration `json:"queued"`
	Settle   time.Duration `json:"settle"`

	// LossPossible is true if a connection may have been lost; Reason then says why.
	// Otherwise Reason says why a better strategy, if there is one, was not possible.
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
