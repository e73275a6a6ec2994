package rig

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A relay carries the datagrams of one client to the server and back, as a NAT does: it
// can change the port that the server sees, and the link can have a delay and losses.
type relay struct {
	front  *net.UDPConn // the client sends to it
	server *net.UDPAddr
	link   Link

	client atomic.Pointer[net.UDPAddr]
	mu     sync.Mutex
	back   *net.UDPConn // the server sends to it
	old    []*net.UDPConn
	wg     sync.WaitGroup
}

// A Link is what lies between clients and server, each way.
type Link struct {
	Delay time.Duration
	Loss  float64
}

func newRelay(server *net.UDPAddr, l Link) (*relay, error) {
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	r := &relay{front: front, server: server, link: l}
	if err := r.rebind(); err != nil {
		_ = front.Close()
		return nil, err
	}
	r.wg.Go(func() { // ends with front
		r.carry(front, func(p []byte, from *net.UDPAddr) {
			r.client.Store(from)
			r.mu.Lock()
			back := r.back
			r.mu.Unlock()
			_, _ = back.Write(p) // as if it were lost
		})
	})
	return r, nil
}

// rebind changes the port that the server sees.
func (r *relay) rebind() error {
	back, err := net.DialUDP("udp", nil, r.server)
	if err != nil {
		return err
	}
	r.mu.Lock()
	if r.back != nil {
		r.old = append(r.old, r.back)
	}
	r.back = back
	r.mu.Unlock()
	r.wg.Go(func() { // ends with back
		r.carry(back, func(p []byte, _ *net.UDPAddr) {
			if c := r.client.Load(); c != nil {
				_, _ = r.front.WriteToUDP(p, c)
			}
		})
	})
	return nil
}

func (r *relay) carry(from *net.UDPConn, to func(p []byte, from *net.UDPAddr)) {
	for {
		b := make([]byte, 2048)
		n, at, err := from.ReadFromUDP(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // ICMP: no process has the port
		}
		switch {
		case r.link.Loss > 0 && rand.Float64() < r.link.Loss:
		case r.link.Delay > 0:
			time.AfterFunc(r.link.Delay, func() { to(b[:n], at) })
		default:
			to(b[:n], at)
		}
	}
}

// close ends the relay when it has carried what the client has sent.
func (r *relay) close() {
	time.Sleep(r.link.Delay + 20*time.Millisecond)
	_ = r.front.Close()
	r.mu.Lock()
	for _, c := range append(r.old, r.back) {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}
