package reuseport_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// A listener that other processes can join, and that leaves them the traffic.
func ExampleListen() {
	ctx := context.Background()
	ln, err := reuseport.Listen(ctx, "tcp", "127.0.0.1:0", nil)
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "hello")
	})}
	ended := make(chan error)
	go func() { ended <- srv.Serve(ln) }()

	// The next instance, which would be another process.
	next, err := reuseport.Listen(ctx, "tcp", ln.Addr().String(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer next.Close()

	// Serve accepts what is still for this instance, until Drain closes.
	report, err := ln.Drain(ctx)
	if err != nil {
		log.Fatal(err)
	}
	<-ended
	if err := srv.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("strategy:", report.Strategy, "loss possible:", report.LossPossible)
	// Output: strategy: steer loss possible: false
}

// One listener for each core, as one listener for the server; a member is
// replaced while it serves.
func ExampleListenGroup() {
	ctx := context.Background()
	g, err := reuseport.ListenGroup(ctx, "tcp", "127.0.0.1:0", &reuseport.Config{Members: 4})
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		ended <- http.Serve(g.Listener(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "hello")
		}))
	}()
	if err := g.Steer(ctx, reuseport.CPU()); err != nil {
		log.Fatal(err)
	}

	if _, err := g.Add(ctx); err != nil {
		log.Fatal(err)
	}
	report, err := g.Remove(ctx, g.Members()[0])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("left:", report.Members, "stay:", len(g.Members()))

	res, err := http.Get("http://" + g.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body) // a short one
	_ = res.Body.Close()            // was read
	fmt.Println(string(body))
	http.DefaultClient.CloseIdleConnections()

	if err := g.Close(); err != nil {
		log.Fatal(err)
	}
	<-ended
	// Output:
	// left: 1 stay: 4
	// hello
}

// What was in the queue when a member began to leave is served.
func ExampleListener_Drain() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	old, err := reuseport.Listen(ctx, "tcp", "127.0.0.1:0", nil)
	if err != nil {
		log.Fatal(err)
	}
	for range 3 { // these are not accepted yet
		c, err := net.Dial("tcp", old.Addr().String())
		if err != nil {
			log.Fatal(err)
		}
		defer c.Close()
	}
	other, err := reuseport.Listen(ctx, "tcp", old.Addr().String(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer other.Close()

	accepted := make(chan error)
	go func() {
		for {
			c, err := old.Accept()
			if err != nil {
				accepted <- err
				return
			}
			_ = c.Close() // this server has nothing to say
		}
	}()
	report, err := old.Drain(ctx)
	fmt.Println("lost:", report.Left, err)
	fmt.Println("Accept:", <-accepted)
	fmt.Println("accepted:", old.Accepted())
	// Output:
	// lost: 0 <nil>
	// Accept: reuseport: use of closed network connection
	// accepted: 3
}

// A member gets no new datagrams while it warms up.
func ExampleListenPacketGroup() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	g, err := reuseport.ListenPacketGroup(ctx, "udp", "127.0.0.1:0", &reuseport.Config{Members: 2})
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	cold, warm := g.Members()[0], g.Members()[1]
	if err := g.Steer(ctx, reuseport.Away(cold)); err != nil {
		log.Fatal(err)
	}
	other, err := reuseport.ListenPacket(ctx, "udp", "127.0.0.1:0", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer other.Close()
	if _, err := other.WriteTo([]byte("question"), cold.LocalAddr()); err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 100)
	n, _, err := warm.ReadFrom(b)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", b[:n])
	fmt.Println(g.Steer(ctx, reuseport.Hash()))
	// Output:
	// question
	// <nil>
}

// A lone listener that restarts makes its clients wait, rather than refuse them.
func ExampleStopQueueing() {
	var ln *net.TCPListener // of the server
	restart := func() error {
		if err := reuseport.StopQueueing(ln); err != nil {
			return err // without CAP_NET_ADMIN it matches fs.ErrPermission
		}
		// Accept what is queued, and restart what the server needs.
		return reuseport.ResumeQueueing(ln)
	}
	_ = restart
}

// Sockets made elsewhere take the hook, after their own.
func ExampleControl() {
	lc := net.ListenConfig{Control: reuseport.Control(nil)}
	lc.SetMultipathTCP(false) // a group of MPTCP listeners can't be steered
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	n, _, err := reuseport.QueueLen(ln.(*net.TCPListener))
	fmt.Println(n, err)
	// Output: 0 <nil>
}
