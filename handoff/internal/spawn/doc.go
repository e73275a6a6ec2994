// Package spawn starts a successor: its program, arguments, folder and environment,
// the conversation that it inherits, its standard error, and its process.
//
// A [Program] is what an upgrade starts. Start returns the [Process] and the
// predecessor's end of the conversation; the successor gets its own end from
// [Inherited].
//
// Until the commit a successor writes its standard error into a pipe that the
// predecessor reads, so that an upgrade that fails can report the last lines: see
// [Capture] for the predecessor's side and [Redirect] for the successor's.
package spawn
