// Package ebpf steers a SO_REUSEPORT group by an eBPF program that names sockets
// instead of indexes, and moves what a closing member holds to another one.
//
//	p, err := ebpf.New()
//	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) { … } // do without
//	err = group.Use(ctx, p)
//
// Drain then needs no probing, and no wait for handshakes that are under way.
//
// # Privilege
//
// It needs kernel 5.14 and, in the effective set, CAP_BPF: that alone, for this
// kind of program, and neither CAP_NET_ADMIN nor CAP_PERFMON nor a user ID of 0
// (is_net_admin_prog_type in the kernel's kernel/bpf/syscall.c). The capability
// is there since kernel 5.8, capabilities(7); CAP_SYS_ADMIN, which had been it
// before, still includes it. It has to be that of the first user namespace: root
// of another, as in a rootless container, has a capability of the same name that
// bpf(2) does not take. Keep it while the program is used. Without it [New] says
// what is missing, by an error that matches [io/fs.ErrPermission].
//
// A kernel older than 5.14 loads the program and moves nothing. New tries that
// out before it returns; its error matches [errors.ErrUnsupported].
//
// # Members
//
// The program sees the members that have joined in this process. Members of
// other processes on the address get no traffic while it is attached, so it is
// for a group that one process has alone.
//
// It is a module of its own, so that a module that does without it does not have
// github.com/cilium/ebpf among its requirements.
package ebpf
