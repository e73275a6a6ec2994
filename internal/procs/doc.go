// Package procs finds and ends processes: descendants of this one, and those that have
// a mark in their environment, which their descendants inherit.
//
// A process ID alone is no name: the kernel gives it to another process after as few as
// 32,768 (pid_max, proc(5)).
//
// A mark is text that the environment must hold, where each entry ends with a
// zero byte: "NAME=value\x00" is a whole entry's end, a quoted path one that no
// longer path contains. The package works on Linux.
package procs
