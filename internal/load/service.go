package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// A Service answers the questions of [Run]. Its fields must not change once it
// is used; its methods may be called from several goroutines.
type Service struct {
	// Version is what the answers name. It must not be empty or hold a space.
	Version string
	// Generation returns the number that the greeting names. nil means 0.
	Generation func() uint64
	// Ending is closed when connections should end, where the client leaves it
	// to the service. nil means never.
	Ending <-chan struct{}
	// Patience bounds the wait for a client's next line. Zero means no limit.
	Patience time.Duration
	// Served is called with the token of each question before it is answered,
	// from the goroutine that answers. It may be nil.
	Served func(token string)
}

// ServeConn serves one connection until it is over, and returns nil if client
// and service agreed on that. The caller owns c and closes it then.
func (s *Service) ServeConn(c net.Conn) error {
	l := newLines(c)
	var gen uint64
	if s.Generation != nil {
		gen = s.Generation()
	}
	if err := l.write(hello{s.Version, gen, os.Getpid()}.String()); err != nil {
		return err
	}
	for {
		if s.Patience > 0 {
			if err := c.SetDeadline(time.Now().Add(s.Patience)); err != nil {
				return err
			}
		}
		line, err := l.read()
		if err != nil {
			return err
		}
		verb, token, _ := strings.Cut(line, " ")
		a := answer{version: s.Version, token: token}
		switch verb {
		case verbOnce, verbBye:
			a.last = true
		case verbKeep:
		case verbNext:
			a.last = s.ending()
		default:
			return fmt.Errorf("load: unknown verb %q", verb)
		}
		s.served(token)
		if err := l.write(a.String()); err != nil || a.last {
			return err
		}
	}
}

func (s *Service) served(token string) {
	if s.Served != nil {
		s.Served(token)
	}
}

func (s *Service) ending() bool {
	select {
	case <-s.Ending:
		return true
	default:
		return false
	}
}

// ServePackets answers datagrams until reading fails, and returns that error.
// Answers that can't be sent are lost, as datagrams are.
func (s *Service) ServePackets(pc net.PacketConn) error {
	buf := make([]byte, maxLine)
	for {
		n, addr, err := pc.ReadFrom(buf)
		if err != nil {
			return err
		}
		s.served(string(buf[:n]))
		_, _ = pc.WriteTo(append([]byte(s.Version+" "), buf[:n]...), addr)
	}
}

// ServeHTTP answers one request.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLine))
	if err != nil {
		status := http.StatusBadRequest
		if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, err.Error(), status)
		return
	}
	s.served(string(token))
	// The peer notices an answer that did not get through.
	_, _ = fmt.Fprintf(w, "%s %s", s.Version, token)
}
