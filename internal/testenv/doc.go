// Package testenv skips tests where the machine lacks what they need, and fails
// them where it must have it.
//
// Each feature is probed by use, once in a process. The environment variable
// BATON_REQUIRE lists the features that the machine must have, separated by
// commas, or is "all": a test that would be skipped for one of them fails.
//
// A test that takes longer than about two seconds calls [Long]: it runs in
// go test ./... and make test-all, and is skipped by go test -short and make
// test. A table leaves at least one row for each promise and mode to the short
// run, so Long stands in an if in there, or in the subtest of a row.
//
// The features:
//
//	chromium       the web browser, in PATH
//	ipv6           a TCP listener on ::1
//	memfd          memfd_create(2) with seals
//	mptcp          sockets of IPPROTO_MPTCP
//	netns          unshare(2) of the network namespace
//	nginx          the web server, in PATH
//	own_clock      BATON_OWN_CLOCK=1: no other program uses the clock, tests may step it
//	pidfd          pidfd_open(2) and pidfd_getfd(2)
//	podman         root, and podman, crun and catatonit in PATH, able to run a container
//	prometheus     the monitoring system, in PATH
//	python3        Python 3, in PATH
//	reuseport_bpf  SO_ATTACH_REUSEPORT_CBPF, see socket(7)
//	root           effective user id 0
//	systemd        a systemd that can be booted: its program, root, namespaces, cgroup2
//	unshare_pid    clone(2) into a new PID namespace
package testenv
