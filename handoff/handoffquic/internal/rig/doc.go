// Package rig replaces an HTTP/3 server under load: a service, its clients in another
// process, and what upgrades the one and counts what the others saw.
package rig
