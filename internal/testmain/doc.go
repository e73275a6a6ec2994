// Package testmain is what every TestMain of this module calls: it runs the
// tests and fails the run if they leave a goroutine, a descriptor or a child
// process behind. It also is the registry of the programs that tests start as
// processes of their own.
package testmain
