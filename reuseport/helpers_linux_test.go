package reuseport_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/reuseport"
)

var helpers = map[string]func(args []string){
	"members": helperMembers,
	"move":    helperMove,
	"sandbox": helperSandbox,
}

// helperMembers has members on an address, which serve until a line on stdin
// says how they leave: "drain", "close", or "stuck", which is a drain while
// nothing is accepted. Each step is reported on stdout.
func helperMembers(args []string) {
	ctx := context.Background()
	n, err := strconv.Atoi(args[2])
	if err != nil {
		panic(err)
	}
	g, err := reuseport.ListenGroup(ctx, args[0], args[1], &reuseport.Config{Members: n})
	if err != nil {
		panic(err)
	}
	stuck := len(args) > 3
	for _, l := range g.Members() {
		if !stuck {
			go serveEcho(l)
		}
	}
	fmt.Println("serving")
	s := bufio.NewScanner(os.Stdin)
	for s.Scan() {
		switch s.Text() {
		case "drain":
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			r, err := g.Drain(ctx)
			cancel()
			fmt.Printf("drained %s %t %d %v\n", strings.ReplaceAll(string(r.Strategy), " ", "-"), r.LossPossible, r.Left, err)
		case "close":
			fmt.Println("closed", g.Close())
		case "stuck":
			// In two steps, so that the end of the first can be reported.
			var away []reuseport.Member
			for _, l := range g.Members() {
				away = append(away, l)
			}
			if err := g.Steer(ctx, reuseport.Away(away...)); err != nil {
				panic(err)
			}
			fmt.Println("steered")
			ctx, cancel := context.WithTimeout(ctx, time.Minute) // it is killed before
			_, err := g.Drain(ctx)
			cancel()
			panic(fmt.Sprint("the drain has ended: ", err))
		}
	}
}

func serveEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { // ends with the client
			defer c.Close()
			answer(c)
		}()
	}
}

// answer echoes without the pipes that io.Copy keeps for the next time.
func answer(c net.Conn) {
	b := make([]byte, 64)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

// process is a helper that runs.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startMembers(t testing.TB, network, address string, n int, more ...string) *process {
	t.Helper()
	cmd := testmain.Command(t, "members", append([]string{network, address, strconv.Itoa(n)}, more...)...)
	p := &process{t: t, cmd: cmd}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	p.in, p.out = in, bufio.NewScanner(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // may have ended
		_ = p.cmd.Wait()         // likewise
	})
	if got := p.line(); got != "serving" {
		err := cmd.Wait() // a helper that has said nothing has ended, and said why on stderr
		t.Fatalf("helper says %q, want serving: %v", got, err)
	}
	return p
}

func (p *process) line() string {
	p.out.Scan()
	return p.out.Text()
}

func (p *process) say(what string) string {
	p.t.Helper()
	if _, err := io.WriteString(p.in, what+"\n"); err != nil {
		p.t.Fatal(err)
	}
	return p.line()
}

func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // may have ended
	_ = p.cmd.Wait()                          // was killed
}
