package systemd

// Internals that tests use.
var (
	ParseName = parseName
	Serves    = serves
	Collides  = collides
)
