module github.com/seed-11c92bf9/baton/handoff/handoffquic

go 1.26.0

require (
	github.com/hashicorp/go-hclog v1.6.3
	github.com/quic-go/quic-go v0.65.0
	github.com/seed-11c92bf9/baton v0.0.0
)

require (
	github.com/cloudflare/tableflip v1.2.3 // indirect
	github.com/fatih/color v1.13.0 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/mattn/go-colorable v0.1.12 // indirect
	github.com/mattn/go-isatty v0.0.14 // indirect
	github.com/mdlayher/netlink v1.11.2 // indirect
	github.com/mdlayher/socket v0.6.0 // indirect
	github.com/quic-go/qpack v0.6.0 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	golang.org/x/crypto v0.54.0 // indirect
	golang.org/x/net v0.56.0 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.40.0 // indirect
)

// Both modules are released together; until then this one builds beside it.
replace github.com/seed-11c92bf9/baton => ../..
