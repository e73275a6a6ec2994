package systemd

// ParseName is parseName.
var ParseName = parseName
