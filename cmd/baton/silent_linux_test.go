package main

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestInterruptedSilent interrupts an upgrade before the server has sent anything. The
// error must not claim a commit.
func TestInterruptedSilent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done, end := make(chan struct{}), make(chan struct{})
	go func() { // ends with the command
		defer close(done)
		defer cancel()
		c, err := ln.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 4096))
		_ = c.CloseRead() // it can't be rolled back
		cancel()
		<-end
	}()
	cmd := newApp(&bytes.Buffer{}).command()
	cmd.SetArgs([]string{"upgrade", "--socket", socket})
	err = cmd.ExecuteContext(ctx)
	if got, _ := statusOf(err); got != exitBrokeOff || strings.Contains(err.Error(), "is committed") {
		t.Errorf("exit status %d: %v, want %d, and nothing committed", got, err, exitBrokeOff)
	}
	_ = ln.Close()
	close(end)
	<-done
}

// TestSilent asks a server whose process is stopped: the kernel accepts the connection,
// and the server never answers. No command may wait forever.
func TestSilent(t *testing.T) {
	for _, args := range []string{"status", "upgrade", "doctor", "rollback", "drain", "drain --wait=none", "events", "events --follow"} {
		t.Run(args, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			ln, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { // ends with the client
				defer close(done)
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				// The second message takes the request back; there is nothing more to
				// wait for.
				for range 2 {
					if _, err := c.Read(make([]byte, 4096)); err != nil {
						return
					}
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			a := newApp(&bytes.Buffer{})
			a.patience = 50 * time.Millisecond
			cmd := a.command()
			cmd.SetArgs(append(strings.Fields(args), "--json", "--socket", socket))
			err = cmd.ExecuteContext(ctx)
			want := exitBrokeOff
			if args == "doctor" {
				want = exitProblem
			}
			if got, _ := statusOf(err); got != want || ctx.Err() != nil {
				t.Errorf("%v: exit status %d, want %d; %v", err, got, want, ctx.Err())
			}
			// The server reads the request when it resumes.
			if strings.HasPrefix(args, "drain") && !strings.Contains(err.Error(), "if the server resumes, it drains then") {
				t.Errorf("%v: want that it may drain yet", err)
			}
			_ = ln.Close()
			<-done
		})
	}
}
