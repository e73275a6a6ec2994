// Package spawn starts a successor: its program, arguments, folder and environment,
// the conversation that it inherits, its standard error, and its process.
//
// A [Program] is what an upgrade starts. Start returns the [Process] and the
// predecessor's end of the conversation; the successor gets its own end from
// [Inherited].
//
// Until the commit a successor writes its standard error into a pipe that the
// predecessor reads, so that an upgrade that fails can report the last lines: see
// [Capture] for the predecessor's side and [Redirect] for the successor's. Where the
// predecessor has a terminal, the pipe is one, too; where it has systemd's journal,
// JOURNAL_STREAM names the pipe until the commit, and what was there before afterwards.
// A process that the successor starts before the commit keeps the pipe, and gets
// SIGPIPE if it writes when the successor has ended.
package spawn
