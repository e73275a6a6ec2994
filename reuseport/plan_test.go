package reuseport

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func roles(s string) (r []role) {
	for _, c := range s {
		r = append(r, map[rune]role{'S': stays, 'L': leaves, 'H': holds}[c])
	}
	return r
}

func TestNextPlan(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		order string
		want  plan
	}{
		{"", plan{}},
		{"SS", plan{}},
		{"LL", plan{}},
		{"LH", plan{}},
		{"SL", plan{targets: []int{0}, closes: []int{1}}},
		{"LS", plan{targets: []int{1}, closes: []int{0}}},
		{"SLS", plan{targets: []int{0, 2}, closes: []int{1}}},
		{"SLLL", plan{targets: []int{0}, closes: []int{3, 2, 1}}},
		{"LSS", plan{targets: []int{1, 2}, closes: []int{0}}},
		{"LLSS", plan{targets: []int{2}, closes: []int{1, 0}}},         // 3 moves to 1, then 2 to 0, where all stay
		{"LLS", plan{targets: []int{1}, closes: []int{0}}},             // the other leaving one gets the traffic
		{"LLLLS", plan{targets: []int{2}, closes: []int{0}}},           // likewise
		{"SLLLLS", plan{targets: []int{0}, closes: []int{4, 3, 2, 1}}}, // only the first stays where it is
		{"LSH", plan{targets: []int{1}, closes: []int{0}}},
	} {
		got := nextPlan(roles(c.order))
		if c.order == "LLLLS" {
			got.targets, c.want.targets = got.targets[:1:1], got.targets[:1:1] // any other of them
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(plan{})); diff != "" {
			t.Errorf("nextPlan(%s) (-want +got):\n%s", c.order, diff)
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

// Whoever leaves in whatever group, the steps end with all of them gone, and at
// no moment is a member chosen that the step closes, that is held, or that leaves in
// a later step, unless the step has named it a target.
func TestPlansAreSafe(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20000) {
		r := rand.New(rand.NewPCG(seed, 0))
		n := 2 + r.IntN(9)
		kind := make(map[int]role)
		k := new(kernel)
		for i := range n {
			k.socks = append(k.socks, i)
			kind[i] = []role{stays, leaves}[r.IntN(2)]
		}
		kind[r.IntN(n)] = stays
		leavingNow := func() int {
			c := 0
			for _, s := range k.socks {
				if kind[s] == leaves {
					c++
				}
			}
			return c
		}
		if leavingNow() == 1 && r.IntN(2) == 0 {
			k.socks = append(k.socks, n)
			kind[n] = holds
		}
		for step := 0; leavingNow() > 0; step++ {
			if step > n {
				t.Fatalf("seed %d: no end", seed)
			}
			var order []role
			for _, s := range k.socks {
				order = append(order, kind[s])
			}
			p := nextPlan(order)
			if len(p.closes) == 0 || len(p.targets) == 0 {
				t.Fatalf("seed %d: nextPlan(%v) = %+v", seed, order, p)
			}
			allowed := make(map[int]bool)
			for _, s := range k.socks {
				allowed[s] = kind[s] == stays
			}
			for _, i := range p.targets {
				if s := k.socks[i]; kind[s] == leaves {
					allowed[s] = true
				}
			}
			var victims []int
			for _, i := range p.closes {
				victims = append(victims, k.socks[i])
				allowed[k.socks[i]] = false
			}
			check := func() {
				for _, i := range p.targets {
					for _, s := range k.choose(i) {
						if !allowed[s] {
							t.Fatalf("seed %d: plan %+v for %v chooses %d among %v", seed, p, order, s, k.socks)
						}
					}
				}
			}
			check()
			for _, v := range victims {
				k.close(v)
				check()
			}
		}
	}
}

func TestAfter(t *testing.T) {
	t.Parallel()
	got := after([]string{"A", "B", "C", "D", "E", "F"}, []int{1})
	if want := []string{"A", "F", "C", "D", "E"}; !slices.Equal(got, want) {
		t.Errorf("after B has left: %v, want %v", got, want)
	}
	got = after([]string{"A", "B", "C", "D"}, []int{3, 0})
	if want := []string{"C", "B"}; !slices.Equal(got, want) {
		t.Errorf("after D and A have left: %v, want %v", got, want)
	}
}
