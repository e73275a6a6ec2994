package reuseport

import (
	"fmt"
	"slices"
)

// Steering says which member of a group gets new traffic. It is a property of the whole
// group in the kernel, members of other processes included: the last Steering that any
// process has set applies. The zero value is [Hash].
type Steering struct {
	kind    steeringKind
	weights []int
	away    []Member
}

type steeringKind uint8

const (
	steerHash steeringKind = iota
	steerCPU
	steerWeights
	steerAway
)

// Member is a [Listener] or a [PacketConn].
type Member interface {
	member() *socket
}

// Hash is the kernel's own choice: by a hash of both addresses and ports over
// all members.
func Hash() Steering { return Steering{} }

// CPU gives traffic that arrives on the n-th CPU to the n-th member of this
// process (modulo their number), in the order of [Group.Members]. Members of
// other processes get none.
func CPU() Steering { return Steering{kind: steerCPU} }

// Weights gives each member of this process a share of the new traffic, in the order of
// [Group.Members]: Weights(1, 99) sends one connection of a hundred to the first. There
// is one weight for each member; none is negative, and not all are zero. Members of other
// processes get none. TCP draws at random for each connection; UDP goes by a hash of
// addresses and ports, so that a flow stays where it is. When a member leaves, the
// steering becomes Hash. A member that joins gets nothing until Steer is called with new
// weights.
func Weights(weights ...int) Steering {
	return Steering{kind: steerWeights, weights: slices.Clone(weights)}
}

// Away gives new traffic evenly to all members but these, members of other processes
// included, as Drain does at its begin. These members keep their connections; another
// Steering lets them get new ones again. While Away is set, the Drain of another process
// waits, because it would need another program.
func Away(members ...Member) Steering {
	return Steering{kind: steerAway, away: slices.Clone(members)}
}

// String describes s for a log.
func (s Steering) String() string {
	switch s.kind {
	case steerCPU:
		return "cpu"
	case steerWeights:
		return fmt.Sprintf("weights %v", s.weights)
	case steerAway:
		return fmt.Sprintf("away from %d", len(s.away))
	}
	return "hash"
}

// shares returns how much of the traffic each of n members gets.
func (s Steering) shares(n int) ([]int, error) {
	if len(s.weights) != n {
		return nil, fmt.Errorf("reuseport: %d weights for %d members: give one for each", len(s.weights), n)
	}
	sum := 0
	for _, w := range s.weights {
		if w < 0 {
			return nil, fmt.Errorf("reuseport: weight %d: a weight is not negative", w)
		}
		sum += w
	}
	if sum <= 0 || sum > 1<<30 {
		return nil, fmt.Errorf("reuseport: weights add up to %d: give a sum between 1 and 2^30", sum)
	}
	return s.weights, nil
}
