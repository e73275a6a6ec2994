// Baton manages a running server that uses package handoff: it shows its status,
// upgrades it to its next version, rolls an upgrade back, and ends it.
//
//	baton status            show a server's status
//	baton upgrade           upgrade a server, and wait for the commit
//	baton rollback          roll back an upgrade that is not committed
//	baton drain             end a server when its open connections are done
//	baton events            show the last events, and with --follow new ones
//	baton run -- APP        run any app, and keep its sockets
//	baton doctor            check what this machine allows
//	baton completion SHELL  completions for bash, zsh, fish or powershell
//	baton man DIR           manual pages, for packages
//
// A server is named by the Name of its configuration (baton status api) or by
// the path of its control socket (--socket). Without either, it is the only one
// that this user runs.
//
// With --json the result is one JSON object on standard output, or one a line
// for events; an error is an object with the member "error". Otherwise standard
// output is for people, with colours and live progress on a terminal, and plain
// lines elsewhere.
//
// # Exit status
//
//	0   done
//	1   none of the below
//	2   wrong usage
//	3   no server: there is no control socket
//	4   no server: its control socket is left over from one that was killed
//	5   not allowed: the server belongs to another user
//	6   the server is of another version, or its mode can't do that
//	7   a disk is full
//	8   the upgrade has failed before the new version was ready; the old one serves on
//	9   the upgrade was rolled back: the new version was ready, or an operator asked for it; the old one serves on
//	10  the upgrade took too long; the old version serves on
//	11  another upgrade is under way
//	12  not now: the server is not ready, or no upgrade is under way
//	13  too late: the upgrade is committed
//	14  doctor has found a problem
//	15  the server broke off, does not answer, or is about to end
//	16  run: the app can't be started: it is missing, or no program
//	17  run: the app has failed for good, or had to be killed in the end
//	18  run: a socket can't be bound: its address is in use, say
package main
