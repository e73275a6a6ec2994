// Package testservice drives a service under test: a line of processes, each the
// successor of the one before, that report what they do in JSON, a line for each
// message, on their standard output.
package testservice
