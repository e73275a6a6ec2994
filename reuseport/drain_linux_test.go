package reuseport_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// tally counts what clients saw.
type tally map[string]int

func echo(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			b := make([]byte, 1)
			if _, err := c.Read(b); err == nil {
				_, _ = c.Write(b)
			}
		}()
	}
}

func ask(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

func TestSmoke(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			ctx := context.Background()
			g, err := reuseport.ListenGroup(ctx, f.network, f.listen, &reuseport.Config{Members: 4})
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			ms := g.Members()
			address := at(ms[0], f.dial)
			conns := dial(t, "tcp", address, 100)
			for _, m := range ms {
				go echo(m)
			}
			r, err := g.Remove(ctx, ms[0], ms[2])
			t.Logf("%+v %v", r, err)
			r, err = ms[1].Drain(ctx)
			t.Logf("%+v %v", r, err)
			conns = append(conns, dial(t, "tcp", address, 10)...)
			r, err = g.Drain(ctx)
			t.Logf("%+v %v", r, err)
			res := tally{}
			for _, c := range conns {
				res[fmt.Sprint(ask(c))]++
			}
			t.Log(res)
		})
	}
}
