module github.com/seed-11c92bf9/baton/reuseport/ebpf

go 1.25.0

require (
	github.com/cilium/ebpf v0.22.0
	github.com/seed-11c92bf9/baton v0.0.0
	golang.org/x/sys v0.47.0
)

require (
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/mdlayher/netlink v1.11.2 // indirect
	github.com/mdlayher/socket v0.6.0 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	golang.org/x/net v0.54.0 // indirect
	golang.org/x/sync v0.20.0 // indirect
)

// Both modules are released together; until then this one builds beside it.
replace github.com/seed-11c92bf9/baton => ../..
