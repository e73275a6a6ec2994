package reuseport

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestNextLeaving(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		order    string // S stays, L leaves later, Q can leave now
		place    int
		targets  []int
		requeued bool
	}{
		{"SS", -1, nil, false},
		{"QL", -1, nil, false},
		{"SQ", 1, []int{0}, false},
		{"QS", 0, []int{1}, false},
		{"SQS", 1, []int{0, 2}, false},
		{"SQLQ", 3, []int{0}, false},
		{"QSS", 0, []int{1, 2}, false},
		{"QQSS", 1, []int{2}, false},
		{"QLS", 0, []int{1}, true}, // the other one gets the traffic
		{"LQS", 1, []int{0}, true},
		{"LQQQS", 1, []int{0}, true},
	} {
		var order []role
		for _, r := range c.order {
			order = append(order, map[rune]role{'S': stays, 'L': leaves, 'Q': quiet}[r])
		}
		place, targets, requeued := nextLeaving(order)
		if place != c.place || !slices.Equal(targets, c.targets) || requeued != c.requeued {
			t.Errorf("nextLeaving(%s) = %d, %v, %t, want %d, %v, %t", c.order, place, targets, requeued, c.place, c.targets, c.requeued)
		}
	}
}

// kernel does what the kernel does with a group: an index past the end means
// any member, and the last one moves into the place of one that goes.
type kernel struct{ socks []int }

func (k *kernel) choose(index int) []int {
	if index < len(k.socks) {
		return k.socks[index : index+1]
	}
	return k.socks
}

func (k *kernel) close(sock int) {
	i := slices.Index(k.socks, sock)
	last := len(k.socks) - 1
	k.socks[i] = k.socks[last]
	k.socks = k.socks[:last]
}

// Whichever members leave, the steps end with all of them gone. While a member
// leaves, before and after, only those that stay are chosen, or the one that is
// requeued, which is quiet no more.
func TestLeavingIsSafe(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20000) {
		r := rand.New(rand.NewPCG(seed, 0))
		n := 2 + r.IntN(9)
		kind := make(map[int]role)
		k := new(kernel)
		left := 0
		for i := range n {
			k.socks = append(k.socks, i)
			kind[i] = []role{stays, leaves}[r.IntN(2)]
		}
		kind[r.IntN(n)] = stays
		for _, r := range kind {
			if r != stays {
				left++
			}
		}
		order := slices.Clone(k.socks)
		for step := 0; left > 0; step++ {
			if step > 50*n {
				t.Fatalf("seed %d: no end", seed)
			}
			var roles []role
			for _, s := range k.socks {
				if kind[s] == leaves && r.IntN(3) > 0 {
					kind[s] = quiet
				}
				roles = append(roles, kind[s])
			}
			place, targets, requeued := nextLeaving(roles)
			if place < 0 {
				continue // none is quiet yet
			}
			victim := k.socks[place]
			if kind[victim] != quiet || len(targets) == 0 {
				t.Fatalf("seed %d: nextLeaving(%v) = %d, %v", seed, roles, place, targets)
			}
			allowed := func(s int) bool { return kind[s] == stays }
			if requeued {
				borrowed := k.socks[targets[0]]
				kind[borrowed] = leaves
				allowed = func(s int) bool { return s == borrowed }
			}
			check := func() {
				for _, i := range targets {
					for _, s := range k.choose(i) {
						if s == victim || !allowed(s) {
							t.Fatalf("seed %d: %v for %v chooses %d among %v", seed, targets, roles, s, k.socks)
						}
					}
				}
			}
			check()
			k.close(victim)
			check()
			if order = without(order, place); !slices.Equal(order, k.socks) {
				t.Fatalf("seed %d: without says %v, the kernel has %v", seed, order, k.socks)
			}
			left--
		}
	}
}
