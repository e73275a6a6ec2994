// Package procs finds and ends processes that tests and demos have started, by a
// mark in their environment, which all who descend from them have as well.
//
// A process ID alone is no name: the kernel gives it to somebody else when it
// comes round to it, after as few as 32,768 processes (pid_max, proc(5)).
//
// A mark is text that the environment must hold, where each entry ends with a
// zero byte: "NAME=value\x00" is a whole entry's end, a quoted path one that no
// longer path contains. The package works on Linux.
package procs
