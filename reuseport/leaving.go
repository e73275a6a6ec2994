package reuseport

// role is what becomes of a member while others leave.
type role uint8

const (
	stays  role = iota // gets the traffic
	leaves             // leaves later
	quiet              // can leave now
)

// nextLeaving returns the place in order of the member that leaves next, and the
// places to choose among while it leaves. All of them name members that stay,
// before and after it has left.
//
// When the kernel takes a member out, the last one moves into its place
// (__reuseport_detach_sock, net/core/sock_reuseport.c), and a place past the end
// makes it choose by hash among all. So the place of the last member is good only
// if all stay afterwards.
//
// A single staying member at the end of the order has no such place. Then another
// member, which leaves later, gets the traffic while the first one leaves and the
// staying one moves to a lower place. requeued says so: that member is not quiet any
// more.
func nextLeaving(order []role) (place int, targets []int, requeued bool) {
	lowest, place, later := -1, -1, -1
	for i, r := range order {
		if r != stays {
			later++ // but for the one at place
		}
		if r == quiet {
			if lowest < 0 {
				lowest = i
			}
			place = i // from the top down, a member that moves is never one that leaves
		}
	}
	if place < 0 {
		return -1, nil, false
	}
	last := len(order) - 1
	for i, r := range order {
		if r == stays && (i != last || later == 0) {
			targets = append(targets, i)
		}
	}
	switch {
	case len(targets) > 0:
		return place, targets, false
	case order[last] != stays:
		return -1, nil, false
	case lowest > 0:
		return lowest, []int{0}, true
	}
	return lowest, []int{1}, true
}

// without returns order after the member at place has left.
func without[T any](order []T, place int) []T {
	last := len(order) - 1
	now := append([]T(nil), order[:last]...)
	if place < last {
		now[place] = order[last]
	}
	return now
}
