package handoff

import (
	"net"
	"os"

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
