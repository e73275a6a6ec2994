// Package lifecycle says what one process goes through, from New to the end of
// Shutdown, as a pure state machine.
//
// [State.Next] returns the next state and the actions that the owner of the state
// carries out. It calls nothing and keeps nothing, so a table tests it, and the
// model of package session explores it together with both sides of the
// conversation.
//
//	Starting ──Ready──────────────────────▶ Serving
//	Starting ──Start─▶ Probation ──Own────▶ Serving
//	Serving ──Begin … Commit──▶ Lingering ──Close──▶ Closed
//	any of them ──Stop──▶ Stopping ──Close──▶ Closed
//
// A process that has joined a predecessor does not stop by itself: it aborts the
// conversation. Then it accepts no more (Leave), and says so; Quit is the end of the
// conversation. An upgrade that is under way when the
// process stops may still commit, which makes Stopping Lingering.
package lifecycle
