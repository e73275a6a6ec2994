// Kernels runs this project's tests on other kernels, in emulated machines:
//
//	kernels -suites bullseye,bookworm,trixie,sid
//
// Each kernel is that of a Debian suite, for virtual machines, downloaded by apt
// without any privilege into the user's cache folder, and kept there. QEMU boots
// it without acceleration (-accel tcg), so that it needs no /dev/kvm, with an
// initramfs of what the tests need: this program as init, the tests of some
// packages as static binaries, the sources and test data of the repository,
// BusyBox for the few commands that tests call, and the kernel's modules for
// sock_diag, TUN, veth and netem.
//
// In the machine, init mounts the usual file systems, loads the modules, runs
// one binary after the other and sends what they say over a second serial line.
// The driver counts tests by go tool test2json, as go test does. A test that has
// subtests is not counted itself.
//
// The topics are the kernel's facts that this project stands on: each has tests
// of which at least one must have passed on each kernel that has the feature,
// and none failed. A machine that hangs, a binary that dies and a topic that was
// not seen are failures. The exit status is 0 if there was none.
package main
