// Package sysfault has tests make system calls of a running program fail: a filter of
// seccomp(2) reports each call of a kind to the test, which answers with an error or lets
// the kernel carry the call out. Threads and processes that a filtered thread starts are
// filtered too, and a filter is never removed. It needs Linux 5.19, and no privilege.
package sysfault
