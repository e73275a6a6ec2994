// Package rig has what tests and the soak program of handoffhttp share: an HTTP
// service that is replaced as a process, a client that doesn't retry, and the
// hand that upgrades one under the load of the other.
package rig
