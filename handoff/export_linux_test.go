package handoff

import (
	"net"
	"os"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// EnvConversation and EnvTableflip are what New takes out of the environment.
const (
	EnvConversation = envConversation
	EnvTableflip    = envTableflip
)

// ListenControl and OpenControl bind control sockets.
func ListenControl(path string) (net.Listener, error) { return listenControl(path) }

func OpenControl(path string) (*net.UnixConn, net.Listener, error) { return openControl(path) }

// ConversationFD reads what the environment says of the conversation.
func ConversationFD(v string) (int, error) { return conversationFD(v) }

// RequestBody decodes the body of an operator's request into into.
func RequestBody(op string, body []byte, into any) error {
	return (&request{asked: wire.Request{Op: op, Body: body}}).body(into)
}

// NewCapture starts to copy a successor's standard error.
func NewCapture(real *os.File) (*Capture, error) { return newCapture(real) }

type Capture = capture

func (c *capture) W() *os.File     { return c.w }
func (c *capture) Lines() []string { return c.lines() }
func (c *capture) Close()          { c.close() }

// HoldListener has nobody shut l's gate until release is called; what would
// close l waits for that. HoldPacketConn is the same for a datagram socket.
func HoldListener(l *Listener) (release func()) {
	l.gate.mu.Lock()
	return l.gate.mu.Unlock
}

func HoldPacketConn(c *PacketConn) (release func()) {
	c.gate.mu.Lock()
	return c.gate.mu.Unlock
}

// ToldClosed returns channels that are closed when u's predecessor in mode Drain
// has said that its listeners and its datagram sockets are.
func ToldClosed(u *Upgrader) (listeners, packets <-chan struct{}) {
	return u.lending.told[wire.KindListener], u.lending.told[wire.KindPacket]
}

// Overtake returns when u's successor has read all that u has said to it.
func Overtake(u, successor *Upgrader) {
	u.mu.Lock()
	l, report := u.lingering, *u.report
	u.mu.Unlock()
	u.tellHistory(l, report)
	<-successor.ops.learned // nothing else of it has come
}

// Settled waits until u serves no sockets of another process any more.
func Settled(u *Upgrader, patience time.Duration) error { return u.awaitVisits(patience) }

// Descends reports whether a process descends from this one.
func Descends(pid int) bool { return descends(pid) }
