// Package debian gets packages of a Debian release that need not be this
// machine's: apt's own tools fetch them from this machine's mirror, with lists,
// caches and sources in a folder of the caller's. Nothing is installed, no script
// of a package is run, and nothing else of the machine changes. It needs no root.
package debian
