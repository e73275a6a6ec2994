// Package failure says why something failed: in one enumeration, whose values are
// the errors that a caller compares with.
//
// A [Reason] has one row in one table: its text, its name in JSON, and the exit
// status of the command. Its number is its code on the wire. The public sentinels
// of packages handoff and control are values of Reason. The package is pure.
package failure
