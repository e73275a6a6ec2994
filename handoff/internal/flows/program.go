package flows

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
)

// MaxKept is the number of flows without an ID that one address can have, in all
// processes together: the program has three instructions for each, and the kernel takes
// 4,096 (BPF_MAXINSNS).
const MaxKept = 1000

// netOff makes a load relative to the network header; the data starts with the payload
// (linux/filter.h, SKF_NET_OFF).
const netOff = 0xfff00000

// A route is what the program of an address does.
type route struct {
	ids     IDs
	key     key
	lanes   int   // all
	live    []int // those that a process has
	current int   // that of all datagrams of no known flow
	kept    []kept
}

// A kept flow is known by the client's address.
type kept struct {
	client netip.AddrPort
	lane   int
}

// assemble returns the program. It ends with the index of a member. A load past the end
// of a datagram would end it with 0, which is lane 0: lengths come first.
func (r *route) assemble() ([]bpf.RawInstruction, error) {
	const unknown, table = "unknown", "table"
	var a assembler
	if len(r.ids.Forms) > 0 {
		a.add(bpf.LoadExtension{Num: bpf.ExtLen})
		a.jumpIf(bpf.JumpEqual, 0, unknown)
	}
	for i, f := range r.ids.Forms {
		next := fmt.Sprint("form ", i+1)
		a.add(bpf.LoadAbsolute{Off: 0, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(f.Mask)})
		a.jumpIf(bpf.JumpNotEqual, uint32(f.Value), next)
		a.add(bpf.LoadExtension{Num: bpf.ExtLen})
		a.jumpIf(bpf.JumpLessThan, uint32(r.ids.end(f)), unknown)
		if f.LenAt > 0 {
			a.add(bpf.LoadAbsolute{Off: uint32(f.LenAt), Size: 1})
			a.jumpIf(bpf.JumpNotEqual, uint32(r.ids.Len), unknown)
		}
		a.add(r.tag(f)...)
		a.jump(table)
		a.place(next)
	}
	a.jump(unknown)
	a.place(table)
	for _, l := range r.live {
		a.add(bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(r.key.tag(l, r.lanes)), SkipTrue: 1}, bpf.RetConstant{Val: uint32(l)})
	}
	a.place(unknown)
	if len(r.kept) > 0 {
		a.add(r.known()...)
	} else {
		a.add(bpf.RetConstant{Val: uint32(r.current)})
	}
	return bpf.Assemble(a.link())
}

// tag leaves the tag of the ID in A, as key.lane does.
func (r *route) tag(f Form) []bpf.Instruction {
	size := 2
	if r.ids.Len >= 5 {
		size = 4
	}
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: uint32(f.At + 1), Size: size},
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: r.key.Mul},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 24},
		bpf.TAX{},
		bpf.LoadAbsolute{Off: uint32(f.At), Size: 1},
		bpf.ALUOpX{Op: bpf.ALUOpXor},
	}
}

// known is code that ends the program with the lane of the client, or the current one. It
// compares a hash: a client that is not kept is taken for one that is with a probability
// of one in 2^32 for each.
func (r *route) known() []bpf.Instruction {
	var v4, v6 []leaf
	for _, f := range r.kept {
		l := leaf{r.key.hash(f.client), f.lane}
		if f.client.Addr().Is4() {
			v4 = append(v4, l)
		} else {
			v6 = append(v6, l)
		}
	}
	load4 := []bpf.Instruction{
		bpf.LoadAbsolute{Off: netOff, Size: 1}, // header length in words
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0f},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2},
		bpf.TAX{},
		bpf.LoadIndirect{Off: netOff, Size: 2}, // source port
		bpf.TAX{},
		bpf.LoadAbsolute{Off: netOff + 12, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: r.key.Mul},
		bpf.ALUOpX{Op: bpf.ALUOpXor},
	}
	load6 := []bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegX}} // there are no extension headers
	for _, off := range []uint32{8, 12, 16, 20} {
		load6 = append(load6, bpf.LoadAbsolute{Off: netOff + off, Size: 4}, bpf.ALUOpX{Op: bpf.ALUOpXor}, bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: r.key.Mul}, bpf.TAX{})
	}
	load6 = append(load6, bpf.LoadAbsolute{Off: netOff + 40, Size: 2}, bpf.ALUOpX{Op: bpf.ALUOpXor})
	in4 := append(load4, search(v4, r.current)...)
	return slices.Concat([]bpf.Instruction{
		bpf.LoadAbsolute{Off: netOff, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 4, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(in4))},
	}, in4, load6, search(v6, r.current))
}

// hash is what known computes for a client.
func (k key) hash(client netip.AddrPort) uint32 {
	ip := client.Addr().AsSlice()
	if len(ip) == 4 {
		return binary.BigEndian.Uint32(ip)*k.Mul ^ uint32(client.Port())
	}
	var h uint32
	for ; len(ip) > 0; ip = ip[4:] {
		h = (h ^ binary.BigEndian.Uint32(ip)) * k.Mul
	}
	return h ^ uint32(client.Port())
}

// A leaf of the search: the lane of a hash.
type leaf struct {
	hash uint32
	lane int
}

// search returns code that ends with the lane of the hash in A, or with other.
func search(all []leaf, other int) []bpf.Instruction {
	slices.SortFunc(all, func(a, b leaf) int { return cmp.Compare(a.hash, b.hash) })
	return halve(all, other)
}

func halve(all []leaf, other int) []bpf.Instruction {
	if len(all) <= 2 {
		var ins []bpf.Instruction
		for _, l := range all {
			ins = append(ins, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: l.hash, SkipTrue: 1}, bpf.RetConstant{Val: uint32(l.lane)})
		}
		return append(ins, bpf.RetConstant{Val: uint32(other)})
	}
	m := len(all) / 2
	low, high := halve(all[:m], other), halve(all[m:], other)
	branch := []bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: all[m].hash, SkipTrue: uint8(min(len(low), 255))}}
	if len(low) > 255 { // a conditional jump does not reach further
		branch = []bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpLessThan, Val: all[m].hash, SkipTrue: 1}, bpf.Jump{Skip: uint32(len(low))}}
	}
	return slices.Concat(branch, low, high)
}

// An assembler has code with jumps to labels that come later.
type assembler struct {
	ins   []bpf.Instruction
	jumps map[int]string
	at    map[string]int
}

func (a *assembler) add(ins ...bpf.Instruction) { a.ins = append(a.ins, ins...) }

func (a *assembler) jump(label string) {
	if a.jumps == nil {
		a.jumps, a.at = make(map[int]string), make(map[string]int)
	}
	a.jumps[len(a.ins)] = label
	a.add(bpf.Jump{})
}

// jumpIf jumps if the condition holds. A conditional jump reaches 255 instructions, and
// one without a condition any.
func (a *assembler) jumpIf(c bpf.JumpTest, val uint32, label string) {
	a.add(bpf.JumpIf{Cond: c, Val: val, SkipFalse: 1})
	a.jump(label)
}

func (a *assembler) place(label string) {
	if a.at != nil {
		a.at[label] = len(a.ins)
	}
}

func (a *assembler) link() []bpf.Instruction {
	for i, label := range a.jumps {
		a.ins[i] = bpf.Jump{Skip: uint32(a.at[label] - i - 1)}
	}
	return a.ins
}
