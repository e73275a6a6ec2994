package main

// A plan is what init finds in the machine.
type plan struct {
	Modules []string `json:"modules"` // files, in order
	Runs    []run    `json:"runs"`
}

// planFile is where it is.
const planFile = "/plan.json"

// Of the gauntlet only what can't be tested in a machine that others use.
const (
	gauntletPackage = "integration/gauntlet"
	gauntletTests   = "^TestClockSteps$"
)

// A run is one test binary.
type run struct {
	Package string   `json:"package"` // folder in the repository
	Path    string   `json:"path"`
	Dir     string   `json:"dir"`
	Args    []string `json:"args"`
}

// An event is what the machine tells the driver, a line of JSON each.
type event struct {
	Kind    eventKind `json:"kind"`
	Package string    `json:"package,omitempty"` // of the run
	Text    string    `json:"text,omitempty"`
	Status  int       `json:"status,omitempty"` // of exit(2), or -1 for a signal
	Seconds float64   `json:"seconds,omitempty"`
}

type eventKind string

const (
	eventBoot   eventKind = "boot"   // Text is the kernel's release
	eventModule eventKind = "module" // Text is why a module was not loaded
	eventStart  eventKind = "start"  // of a run
	eventOutput eventKind = "output" // of a run: Text
	eventExit   eventKind = "exit"   // of a run: Status, Seconds, Text if it did not come to that
	eventEnd    eventKind = "end"    // all is done; Text is an error
)
