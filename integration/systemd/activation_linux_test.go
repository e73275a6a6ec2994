package main

import (
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestActivation has a service started by its first client, with sockets of each
// kind: by name and by address, from two socket units. It is upgraded and
// restarted under load, and nothing is lost.
func TestActivation(t *testing.T) {
	testenv.Long(t, "handoff.TestActivation")
	r := newTestRig(t, "")
	const (
		path, seq, abstract = "/run/app.sock", "/run/app.seq", "@app"
		admin               = "127.0.0.1:8090"
	)
	r.must(r.m.WriteFile("/etc/systemd/system/app.socket.d/more.conf", "[Socket]\nListenSequentialPacket="+seq+"\nListenStream="+abstract+"\n"))
	r.must(r.m.WriteFile("/etc/systemd/system/app-admin.socket", "[Socket]\nListenStream="+admin+"\nFileDescriptorName=admin\nService=app.service\n"))
	set := settings{mode: handoff.Takeover, probation: 50 * time.Millisecond, listen: []address{
		// By name: what it says of the address is not so.
		{proto: protoHTTP, name: "admin", network: "tcp", address: "127.0.0.1:1"},
		{proto: protoLines, name: "app", network: "tcp", address: webAddress},
		{proto: protoPackets, name: "app", network: "udp", address: webAddress},
		{proto: protoLines, network: "unix", address: path},
		{proto: protoLines, network: "unixpacket", address: seq},
		{proto: protoLines, network: "unix", address: abstract},
	}, extra: []string{"Sockets=app-admin.socket"}}
	r.must(r.install(r.ctx, set, "app.service", "app.socket"))
	r.must(r.systemctl(r.ctx, "enable", "app.socket"))
	r.must(r.systemctl(r.ctx, "start", "app.socket", "app-admin.socket"))
	r.want("app.service", map[string]string{"ActiveState": "inactive"})
	c := r.load(
		load.Target{Name: "post", Kind: load.Post, Network: "tcp", Address: admin, Workers: 1},
		load.Target{Name: "tcp", Kind: load.Once, Network: "tcp", Address: webAddress, Workers: 1},
		load.Target{Name: "udp", Kind: load.Datagram, Network: "udp", Address: webAddress, Workers: 1},
		load.Target{Name: "unix", Kind: load.Once, Network: "unix", Address: path, Workers: 1},
		load.Target{Name: "open", Kind: load.Keep, Network: "unix", Address: path, Workers: 1},
		load.Target{Name: "seqpacket", Kind: load.Once, Network: "unixpacket", Address: seq, Workers: 1},
		load.Target{Name: "abstract", Kind: load.Once, Network: "unix", Address: abstract, Workers: 1},
	)
	r.want("app.service", map[string]string{"ActiveState": "active"})
	r.silent("app.service", "has not asked for a socket")
	for _, version := range []string{"v2", "v3"} {
		if _, err := r.upgrade(r.ctx, "app.service", c, version); err != nil {
			t.Fatal(err)
		}
	}
	r.must(r.version("v4"))
	r.must(r.systemctl(r.ctx, "restart", "app.service"))
	r.must(c.answeredBy(r.ctx, "v4"))
	r.lossless(c)
	// The paths are systemd's.
	r.must(r.systemctl(r.ctx, "stop", "app.service", "app-admin.socket"))
	r.must(r.start(r.ctx, "app.service"))
}
