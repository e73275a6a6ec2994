// Command drains leaves a SO_REUSEPORT group thousands of times under load, first
// by Drain and then by Close, and counts what the clients saw. Clients are
// another process and never try again.
//
// It runs without privilege. As root it puts all processes into a network
// namespace of their own with net.ipv4.tcp_migrate_req=0, and the servers under
// uid 65534.
package main
