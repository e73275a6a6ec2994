// Package handoffdebug shows what [handoff.Upgrader.Status] knows over HTTP: as a
// page to read, and as the JSON of `baton status --json`.
//
//	mux.Handle(handoffdebug.Path, handoffdebug.Handler(up))
//
//	/debug/baton/                    the page
//	/debug/baton/?refresh=5          the page; the browser reloads it every 5 seconds
//	/debug/baton/status.json         JSON
//
// For another path, put the handler behind [net/http.StripPrefix]:
//
//	mux.Handle("/admin/", http.StripPrefix("/admin", handoffdebug.Handler(up)))
//
// The handler changes nothing: it answers GET and HEAD alone. But it shows
// addresses, versions and paths of programs to every client, and for each answer the
// Upgrader asks the kernel about its listeners. As with package net/http/pprof, a server
// on a public address has to restrict the access. The page has no scripts, loads nothing,
// and follows the light or dark scheme of the reader.
//
// Importing the package registers nothing.
package handoffdebug
