// Package pidfile keeps a file that names the process that serves.
//
// A successor stages the file while an upgrade can still fail, and writes it at the
// commit. Everything that can be refused, for want of space or of a permission, is
// refused when it is staged. The package works on every system.
package pidfile
