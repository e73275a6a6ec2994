package reuseport

import "slices"

// role is what becomes of a member while others leave.
type role uint8

const (
	stays  role = iota // gets the traffic
	leaves             // closes
	holds              // neither: stays to the end and gets nothing
)

// plan is one step of leaving: while the program chooses among targets, the
// members at closes can be closed in that order, and at no moment, before,
// between and after the closes, does an index of targets name a member that
// leaves. Both are indexes into the order before the step.
type plan struct {
	targets []int
	closes  []int
}

// nextPlan finds the step that closes most members of order.
//
// When the kernel takes a member out, the last one moves into its place
// (__reuseport_detach_sock, net/core/sock_reuseport.c), and an index past the
// end makes it choose by hash among all. So a target is good if it names a
// staying member before and after each close, or if nobody is left after the
// close whom the hash must not find.
//
// A single staying member at the end of the order has no such index. Then
// another member, which leaves later, gets the traffic while the first one
// closes and the staying one moves to a lower place.
//
// Without a staying member, or without a leaving one, the plan is empty.
func nextPlan(order []role) plan {
	var leaving, staying []int
	for i, r := range order {
		switch r {
		case leaves:
			leaving = append(leaving, i)
		case stays:
			staying = append(staying, i)
		}
	}
	if len(leaving) == 0 || len(staying) == 0 {
		return plan{}
	}
	// From the top down: a member that moves is then never one that leaves.
	slices.Reverse(leaving)
	for n := len(leaving); n > 0; n-- {
		if t := goodTargets(order, staying, leaving[:n]); len(t) > 0 {
			return plan{targets: t, closes: leaving[:n]}
		}
	}
	// The lowest place is the best one for the staying member to move to.
	first := leaving[len(leaving)-1]
	for _, other := range leaving[:len(leaving)-1] {
		with := slices.Clone(order)
		with[other] = stays
		if t := goodTargets(with, []int{other}, []int{first}); len(t) > 0 {
			return plan{targets: t, closes: []int{first}}
		}
	}
	return plan{}
}

// goodTargets returns the candidates that name a staying member throughout.
func goodTargets(order []role, candidates, closes []int) []int {
	bad := make(map[int]bool)
	eachStep(order, closes, func(now []role) {
		harmless := !slices.Contains(now, leaves) && !slices.Contains(now, holds)
		for _, c := range candidates {
			if c >= len(now) {
				bad[c] = bad[c] || !harmless
			} else if now[c] != stays {
				bad[c] = true
			}
		}
	})
	return slices.DeleteFunc(slices.Clone(candidates), func(c int) bool { return bad[c] })
}

// eachStep calls f with the order before the first close and after each.
func eachStep[T any](order []T, closes []int, f func(now []T)) {
	now := slices.Clone(order)
	at := make([]int, len(order)) // where the member that began at i is
	who := make([]int, len(order))
	for i := range at {
		at[i], who[i] = i, i
	}
	f(now)
	for _, c := range closes {
		last := len(now) - 1
		hole := at[c]
		now[hole], who[hole] = now[last], who[last]
		at[who[hole]] = hole
		now = now[:last]
		f(now)
	}
}

// after returns order without the members at closes, as the kernel leaves it.
func after[T any](order []T, closes []int) []T {
	var end []T
	eachStep(order, closes, func(now []T) { end = now })
	return slices.Clone(end)
}
