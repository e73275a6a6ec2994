package handoff_test

import (
	"context"
	"crypto/rand"
	"log"

	"github.com/seed-11c92bf9/baton/handoff"
)

func ExampleUpgrader_ListenFlows() {
	if err := tunnels(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// tunnels serves a protocol whose datagrams have, after a byte 2, a receiver of 8 bytes
// that the server has chosen. A byte 1 opens a tunnel.
func tunnels(ctx context.Context) error {
	up, err := handoff.New(&handoff.Config{Name: "tunnels"})
	if err != nil {
		return err
	}
	ids := handoff.FlowIDs{Len: 8, Forms: []handoff.FlowForm{{Mask: 0xff, Value: 2, At: 1}}}
	flows, err := up.ListenFlows(ctx, "udp", ":5000", handoff.FlowConfig{IDs: ids})
	if err != nil {
		return err
	}
	go func() {
		for b := make([]byte, 1500); ; {
			n, client, err := flows.Conn().ReadFromUDPAddrPort(b)
			if err != nil {
				return // Shutdown has closed it
			}
			if n > 0 && b[0] == 1 {
				id := make([]byte, ids.Len)
				_, _ = rand.Read(id)
				if err := flows.Mark(id); err != nil { // its datagrams come to this process
					log.Print(err)
				}
				_, _ = flows.Conn().WriteToUDPAddrPort(append([]byte{2}, id...), client)
			}
		}
	}()
	if err := up.Ready(); err != nil { // from here on new tunnels are this process's
		return err
	}
	<-up.Done()
	return up.Shutdown(ctx) // when the tunnels of this process have ended, see Hold
}

// A session of a protocol without IDs, such as DTLS 1.2, is known by the client's address.
func ExampleFlows_Keep() {
	session := func(flows *handoff.Flows, serve func() error) error {
		b := make([]byte, 1500)
		_, client, err := flows.Conn().ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		if err := flows.Keep(client); err != nil { // it stays with this process
			return err
		}
		defer func() { _ = flows.Forget(client) }()
		return serve()
	}
	_ = session
}
