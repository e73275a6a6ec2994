// Package ebpf steers a SO_REUSEPORT group by an eBPF program that names sockets
// instead of indexes, and moves what a closing member holds to another one.
//
//	p, err := ebpf.New()
//	if errors.Is(err, errors.ErrUnsupported) { … } // do without
//	err = group.Use(ctx, p)
//
// Drain then needs no probing, and no wait for handshakes that are under way.
// Loading needs CAP_BPF, or root, and kernel 5.14. An older kernel loads the
// program and moves nothing, so [New] tries it out before it returns.
//
// The program sees the members that have joined in this process. Members of
// other processes on the address get no traffic while it is attached, so it is
// for a group that one process has alone.
//
// It is a module of its own, so that who does without it does not have
// github.com/cilium/ebpf among the requirements of his own module.
package ebpf
