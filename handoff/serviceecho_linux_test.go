package handoff_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// echo answers each line with the generation and the line.
func echo(up *handoff.Upgrader, l *handoff.Listener, set settings) {
	for {
		c, err := l.Accept()
		if t, ok := err.(interface{ Temporary() bool }); ok && t.Temporary() {
			continue // as net/http does
		}
		if err != nil {
			return
		}
		go func() {
			if set.Greet {
				_, _ = fmt.Fprintln(c, os.Getpid()) // the client sees what fails
			}
			echoConn(up, c, nil, set.Move)
		}()
	}
}

// echoConn serves a connection of which begun has been read already. If move,
// it goes to the successor when this process is to end, and is served on here if
// that does not take it.
func echoConn(up *handoff.Upgrader, c net.Conn, begun []byte, move bool) {
	defer c.Close()
	if move {
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			select {
			case <-up.Done():
				_ = c.SetReadDeadline(time.Unix(1, 0))
			case <-stop:
			}
		}()
	}
	r := bufio.NewReader(io.MultiReader(bytes.NewReader(begun), c))
	for {
		line, err := r.ReadString('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err := up.SendConn(context.Background(), "echo", c, []byte(line))
			if err == nil {
				return
			}
			say(message{Kind: "not-moved", Err: err.Error(), Is: sentinelsOf(err)})
			if !errors.Is(err, handoff.ErrNotTaken) {
				return // it is in doubt, or there is no successor
			}
			_ = c.SetReadDeadline(time.Time{}) // its end shows in the next read
			r = bufio.NewReader(io.MultiReader(strings.NewReader(line), c))
			continue
		}
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(c, "%d %s", up.Generation(), line); err != nil {
			return
		}
	}
}

// passState reads the predecessor's log, adds a line, and provides it.
func passState(up *handoff.Upgrader, bad bool) error {
	var log []byte
	f, err := up.State("log")
	switch {
	case err == nil:
		log, err = io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		say(message{Kind: "state", Err: string(log)})
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	log = fmt.Appendf(log, "%d;", up.Generation())
	up.ProvideState("log", func(_ context.Context, w io.Writer) error {
		if bad {
			return errors.New("a planned failure to write")
		}
		_, err := w.Write(log)
		return err
	})
	return nil
}

// onRollback takes the sockets back at SIGUSR1.
func onRollback(up *handoff.Upgrader) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGUSR1)
	defer signal.Stop(ch)
	for {
		select {
		case <-ch:
			if err := up.Abort(errors.New("a planned rollback")); err != nil {
				say(message{Kind: "no-rollback", Err: err.Error(), Is: sentinelsOf(err)})
			}
		case <-up.Done():
			return
		}
	}
}

func echoPackets(up *handoff.Upgrader, pc *handoff.PacketConn, late *sync.WaitGroup) {
	buf := make([]byte, 2048)
	for {
		n, addr, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		if bytes.HasPrefix(buf[:n], []byte("late")) && up.Generation() > 1 {
			late.Add(1)
			say(message{Kind: "late"})
			<-up.Done() // no more is read, and this is answered
			defer late.Done()
		}
		if _, err := pc.WriteTo(fmt.Appendf(nil, "%d %s", up.Generation(), buf[:n]), addr); err != nil {
			fmt.Fprintln(os.Stderr, "no answer to a datagram:", err)
		}
	}
}
