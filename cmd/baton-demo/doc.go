// Baton-demo demonstrates package handoff: it replaces a service by its next version
// again and again while clients use it, and no connection fails.
//
//	baton-demo demo     builds itself in several versions and shows all of it
//	baton-demo serve    is the service
//	baton-demo load     is the clients, a process of its own
//
// demo needs the go command and this module's source. To run the parts by hand:
//
//	go build -ldflags "-X main.version=v1" -o /tmp/demo/server ./cmd/baton-demo
//	/tmp/demo/server serve -mode takeover -dir /tmp/demo/run &
//	/tmp/demo/server load -dir /tmp/demo/run -duration 30s &
//	go build -ldflags "-X main.version=v2" -o /tmp/demo/new ./cmd/baton-demo
//	mv /tmp/demo/new /tmp/demo/server
//	go run ./cmd/baton upgrade --socket /tmp/demo/run/control/sock
//
// kill -USR2 $(cat /tmp/demo/run/pid) upgrades too, but prints nothing.
package main
