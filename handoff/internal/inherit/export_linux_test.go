package inherit

// Names for tests in the external package.
var (
	NewSlot  = newSlot
	TakeSlot = takeSlot
	Cause    = cause
)
