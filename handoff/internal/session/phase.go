package session

// Phase names a part of the upgrade, for reports.
type Phase uint8

// The phases of an upgrade.
const (
	PhaseWaiting Phase = iota
	PhaseTransfer
	PhaseWarming
	PhaseProbation
	PhaseCommitting
	PhaseDone
)
