package spawn

// Names for tests in the external package.
var NewTerminal = newTerminal
