// Package fakesystemd is systemd's end of the notify socket (sd_notify(3)), for tests:
// it records the messages of a service, lets barriers wait, and keeps a descriptor
// store as systemd does.
package fakesystemd
