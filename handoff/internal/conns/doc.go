// Package conns counts the open connections that Shutdown waits for: those that it
// tracks, one by one, and those that a server holds, by their number.
//
// A tracked connection is in a wrapper that has all methods of the connection of
// package net in it, so sendfile(2), splice(2), CloseWrite and SyscallConn work. It
// costs one allocation.
package conns
