package spawn

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// envConversation names the inherited descriptor of the conversation to a successor.
const envConversation = "BATON_HANDOFF"

// Spawned reports whether a predecessor has started this process, until Inherited has
// taken the conversation.
func Spawned() bool { return os.Getenv(envConversation) != "" }

// Inherited returns the conversation that the predecessor has given to this process at
// its start, or nil. It takes it out of the environment, which processes that this one
// starts inherit.
func Inherited() (*net.UnixConn, error) {
	v := os.Getenv(envConversation)
	if v == "" {
		return nil, nil
	}
	if err := os.Unsetenv(envConversation); err != nil {
		return nil, err
	}
	fd, err := conversationFD(v)
	if err != nil {
		return nil, err
	}
	c, err := fdx.UnixConn(fd, "conversation")
	if err != nil {
		return nil, fmt.Errorf("conversation with the predecessor, on descriptor %d (%s in the environment): has a wrapper closed it? %w", fd, envConversation, err)
	}
	return c, nil
}

// conversationFD returns the descriptor that the environment names. The kernel reads 32
// bits of it, so that a larger number would be another descriptor.
func conversationFD(v string) (int, error) {
	fd, err := strconv.ParseInt(v, 10, 32)
	if err != nil || fd < 3 {
		return 0, fmt.Errorf("%w: %s=%q in the environment is no descriptor", failure.Protocol, envConversation, v)
	}
	return int(fd), nil
}
