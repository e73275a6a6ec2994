package session

// Names for tests in the external package.
type (
	PredState  = predState
	PredPhase  = predPhase
	PredEvent  = predEvent
	PredAction = predAction
	SuccState  = succState
	SuccPhase  = succPhase
	SuccEvent  = succEvent
	SuccAction = succAction
)

// QuietTicks is how many ticks without a word make a silence.
const QuietTicks = quietTicks

// ErrInterrupted is what Recv returns after Interrupt.
var ErrInterrupted = errInterrupted

// Gone is closed when the conversation is over.
func (l *Lingering) Gone() <-chan struct{} { return l.gone }

// LinkOf returns the link of a successor.
func LinkOf(s *Successor) Link { return s.conv.link }
