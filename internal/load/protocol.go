package load

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// maxLine bounds a line, a datagram and a body.
const maxLine = 512

// The verbs of a client.
const (
	verbOnce = "once" // the only question
	verbKeep = "keep" // one of many; the client says when it is done
	verbNext = "next" // one of many; the service may say when it is done
	verbBye  = "bye"  // no more questions
)

const greeting = "baton"

// hello is what the service says first.
type hello struct {
	version    string
	generation uint64
	pid        int
}

func (h hello) String() string {
	return fmt.Sprintf("%s %s %d %d", greeting, h.version, h.generation, h.pid)
}

func parseHello(line string) (hello, error) {
	f := strings.Fields(line)
	if len(f) != 4 || f[0] != greeting {
		return hello{}, wrong("greeting", line, greeting+" VERSION GENERATION PID")
	}
	gen, err := strconv.ParseUint(f[2], 10, 64)
	pid, err2 := strconv.Atoi(f[3])
	if err != nil || err2 != nil {
		return hello{}, wrong("greeting", line, greeting+" VERSION GENERATION PID")
	}
	return hello{f[1], gen, pid}, nil
}

// answer is the reply to one question on a stream.
type answer struct {
	version, token string
	last           bool
}

func (a answer) String() string {
	end := "more"
	if a.last {
		end = "last"
	}
	return a.version + " " + a.token + " " + end
}

func parseAnswer(line string) (answer, error) {
	f := strings.Fields(line)
	if len(f) != 3 || f[2] != "more" && f[2] != "last" {
		return answer{}, wrong("answer", line, "VERSION TOKEN more|last")
	}
	return answer{f[0], f[1], f[2] == "last"}, nil
}

// parseShort parses an answer without a greeting: "VERSION TOKEN".
func parseShort(text, token string) (version string, err error) {
	version, got, ok := strings.Cut(strings.TrimSpace(text), " ")
	if !ok || got != token {
		return "", wrong("answer", text, "VERSION "+token)
	}
	return version, nil
}

// lines reads and writes the lines of a stream.
type lines struct {
	c net.Conn
	r *bufio.Reader
}

func newLines(c net.Conn) *lines { return &lines{c, bufio.NewReaderSize(c, maxLine)} }

// read reads a line. A line that is longer than maxLine is bufio.ErrBufferFull.
func (l *lines) read() (string, error) {
	b, err := l.r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return string(b[:len(b)-1]), nil
}

func (l *lines) write(s string) error {
	_, err := l.c.Write([]byte(s + "\n"))
	return err
}
