package handoffhttp_test

import (
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp/internal/rig"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestNoRequestLostTLS is TestNoRequestLost for connections that can't move. The
// clients come back with their sessions: a full handshake is the exception.
func TestNoRequestLostTLS(t *testing.T) {
	t.Parallel()
	upgrades := testenv.Times(1, 3)
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		for i, protocol := range []string{"tls", "h2", "h2c"} {
			t.Run(protocol, func(t *testing.T) {
				if modes[i] != mode {
					testenv.Long(t, "TestNoRequestLostTLS")
				}
				load := rig.Load{Clients: 32, Body: 5, Protocol: protocol, Think: 5 * time.Millisecond}
				set := rig.Settings{How: rig.Baton, Mode: mode, Protocol: protocol}
				o := runLoad(t, set, load, upgrades)
				if o.Failed != 0 || len(o.Gens) != upgrades+1 {
					t.Errorf("%d failed of %d, by generation %v: %v", o.Failed, o.OK+o.Failed, o.Gens, o.Errors)
				}
				if protocol == "tls" && (o.Fresh != uint64(load.Clients) || o.Conns < uint64(load.Clients*(upgrades+1))) {
					t.Errorf("%d full handshakes of %d connections, want %d: one for each client", o.Fresh, o.Conns, load.Clients)
				}
				t.Logf("%d requests, %d failed, %d not sent, %d connections", o.OK, o.Failed, o.Unsent, o.Conns)
				if testing.Short() && protocol != "tls" {
					return // one control shows that the clients count
				}
				set.How = rig.Shutdown
				o = runLoad(t, set, load, upgrades)
				if o.Failed == 0 && protocol == "tls" {
					t.Errorf("http.Server.Shutdown lost none of %d requests: the test above proves nothing", o.OK)
				}
				t.Logf("control: %d requests, %d failed: %v; %d of %d connections with a full handshake", o.OK, o.Failed, o.Errors, o.Fresh, o.Conns)
			})
		}
	})
}
