package session

// Names for tests in the external package.
type (
	Offer       = offer
	OfferPhase  = offerPhase
	OfferEvent  = offerEvent
	OfferAction = offerAction
	Claim       = claim
	ClaimPhase  = claimPhase
	ClaimEvent  = claimEvent
	ClaimAction = claimAction
)

// QuietTicks is how many ticks without a word make a silence.
const QuietTicks = quietTicks

// ErrInterrupted is what Recv returns after Interrupt.
var ErrInterrupted = errInterrupted
