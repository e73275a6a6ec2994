package rig

import (
	"context"
	"crypto/rand"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/seed-11c92bf9/baton/handoff"
)

// longIDs are connection IDs of 9 bytes, which clients choose as well: 8 to 20 in quic-go.
const longIDs = 9

// A longGenerator makes them.
type longGenerator struct{ flows *handoff.Flows }

func (longGenerator) ConnectionIDLen() int { return longIDs }

func (g longGenerator) GenerateConnectionID() (quic.ConnectionID, error) {
	id := make([]byte, longIDs)
	_, _ = rand.Read(id) // it never fails (Go 1.24)
	if err := g.flows.Mark(id); err != nil {
		return quic.ConnectionID{}, err
	}
	return quic.ConnectionIDFromBytes(id), nil
}

// runLong serves as handoffquic does, with connection IDs that are too long.
func (s *Service) runLong(ctx context.Context, up *handoff.Upgrader, srv *http3.Server) error {
	flows, err := up.ListenFlows(ctx, "udp", s.Address, handoff.FlowConfig{IDs: handoff.FlowIDs{Len: longIDs, Forms: []handoff.FlowForm{
		{Mask: 0x80, Value: 0x80, LenAt: 5, At: 6},
		{Mask: 0x80, Value: 0, At: 1},
	}}})
	if err != nil {
		return err
	}
	var open atomic.Int64
	ended := make(chan struct{}, 1)
	t := &quic.Transport{Conn: flows.Conn(), ConnectionIDGenerator: longGenerator{flows}}
	t.ConnContext = func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
		open.Add(1)
		context.AfterFunc(ctx, func() {
			if open.Add(-1) == 0 {
				select {
				case ended <- struct{}{}:
				default:
				}
			}
		})
		return ctx, nil
	}
	defer t.Close()
	ln, err := t.ListenEarly(http3.ConfigureTLSConfig(srv.TLSConfig), &quic.Config{})
	if err != nil {
		return err
	}
	if err := s.ready(flows.Conn().LocalAddr().String()); err != nil {
		return err
	}
	release := up.Hold(func() int { return int(open.Load()) })
	go func() { _ = srv.ServeListener(ln) }() // ends with t
	if err := up.Ready(); err != nil {
		return err
	}
	<-up.Done()
	for open.Load() > 0 {
		<-ended
	}
	release(nil)
	return up.Shutdown(ctx)
}
