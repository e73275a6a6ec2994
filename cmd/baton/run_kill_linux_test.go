package main

import (
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// free waits until an address is free: the kernel closes the descriptors of a killed
// process a moment after its end can be seen.
func free(t *testing.T, address string) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		ln, err := net.Listen("tcp", address)
		if err == nil {
			_ = ln.Close() // no connections
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		<-time.After(5 * time.Millisecond) // no event to wait for
	}
}

// TestRunKilled kills baton run at each step. The kernel ends the app, and the next
// baton run can bind the address.
func TestRunKilled(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"plain", "takeover"} {
		for step, reach := range map[string]func(*running){
			"socket":  func(r *running) {},
			"started": func(r *running) { r.await("started") },
			"ready":   func(r *running) { r.await("ready") },
			"upgrade": func(r *running) {
				r.await("ready")
				r.signal(syscall.SIGUSR2)
				r.await("started")
			},
			"upgraded": func(r *running) {
				r.await("ready")
				r.signal(syscall.SIGUSR2)
				r.await("upgraded")
			},
			"some time in an upgrade": func(r *running) {
				r.await("ready")
				r.signal(syscall.SIGUSR2)
				d := rand.N(200 * time.Millisecond)
				r.t.Logf("killed after %v", d)
				<-time.After(d)
			},
			"stopping": func(r *running) {
				r.await("ready")
				r.signal(syscall.SIGTERM)
				r.await("stopping")
			},
			"down": func(r *running) {
				if err := syscall.Kill(r.await("ready").PID, syscall.SIGKILL); err != nil {
					r.t.Fatal(err)
				}
				r.await("the app is down: restarting it")
			},
		} {
			t.Run(kind+"/"+step, func(t *testing.T) {
				if kind == "plain" && step != "ready" && step != "upgrade" {
					testenv.Long(t, "TestRunKilled")
				}
				t.Parallel()
				r := runApp(t, nil, []string{"--ready-notify", "--listen", "web=tcp://127.0.0.1:0"}, goApp(t, kind)...)
				address := r.address()
				reach(r)
				r.signal(syscall.SIGKILL)
				gone(t, r.dir)
				free(t, address)
				again := runApp(t, nil, []string{"--ready-notify", "--listen", "web=tcp://" + address}, goApp(t, kind)...)
				again.await("ready")
				again.stop()
			})
		}
	}
}
