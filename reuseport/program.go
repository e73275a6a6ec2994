package reuseport

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
)

// netOff makes a load relative to the network header; program data starts
// behind the transport header (linux/filter.h, SKF_NET_OFF).
const netOff = 0xfff00000

// maxTargets keeps a program within BPF_MAXINSNS (4096): two instructions for
// each target, three for each exception.
const maxTargets = 800

// program is what a classic filter on a group does.
type program struct {
	// targets are the indexes to choose from, by the kernel's hash over all
	// members if there are none. weights are their shares; nil weights are even
	// ones.
	targets, weights []int
	byCPU            bool // choose by CPU instead of by weight
	sticky           bool // draw by addresses and ports instead of at random
	// except sends connections from single source ports of the address self
	// elsewhere.
	self   netip.Addr
	except map[uint16]int
}

// assemble returns the program's code.
func (p *program) assemble() ([]bpf.RawInstruction, error) {
	if len(p.targets) > maxTargets || len(p.except) > maxTargets {
		return nil, fmt.Errorf("steering among %d members: at most %d are possible", max(len(p.targets), len(p.except)), maxTargets)
	}
	var ins []bpf.Instruction
	if len(p.except) > 0 {
		ins = append(ins, p.exceptions()...)
	}
	return bpf.Assemble(append(ins, p.choice()...))
}

// exceptions returns code that falls through for all other traffic.
func (p *program) exceptions() []bpf.Instruction {
	var table []bpf.Instruction
	for port, index := range p.except {
		table = append(table,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipFalse: 1},
			bpf.RetConstant{Val: uint32(index)})
	}
	over := func(ins []bpf.Instruction) bpf.Instruction { return bpf.Jump{Skip: uint32(len(ins))} }
	version, host := uint32(4), []bpf.Instruction{
		bpf.LoadAbsolute{Off: netOff, Size: 1}, // header length in words
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0f},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2},
		bpf.TAX{},
		bpf.LoadIndirect{Off: netOff, Size: 2}, // source port
	}
	addrOff, ip := uint32(netOff+12), p.self.AsSlice()
	if p.self.Is6() {
		// Extension headers don't occur on the connections meant here.
		version, addrOff = 6, netOff+8+12
		host = []bpf.Instruction{bpf.LoadAbsolute{Off: netOff + 40, Size: 2}}
	}
	body := append(host, table...)
	checkAddr := []bpf.Instruction{
		bpf.LoadAbsolute{Off: addrOff, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(ip[len(ip)-4:]), SkipTrue: 1},
		over(body),
	}
	body = append(checkAddr, body...)
	return append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: netOff, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: version, SkipTrue: 1},
		over(body),
	}, body...)
}

// choice returns code that ends the program.
func (p *program) choice() []bpf.Instruction {
	switch len(p.targets) {
	case 0:
		return []bpf.Instruction{bpf.RetConstant{Val: ^uint32(0)}} // no such index
	case 1:
		return []bpf.Instruction{bpf.RetConstant{Val: uint32(p.targets[0])}}
	}
	weights := p.weights
	if weights == nil {
		weights = make([]int, len(p.targets))
		for i := range weights {
			weights[i] = 1
		}
	}
	sum := 0
	for _, w := range weights {
		sum += w
	}
	var ins []bpf.Instruction
	switch {
	case p.byCPU:
		ins = append(ins, bpf.LoadExtension{Num: bpf.ExtCPUID})
	case p.sticky:
		ins = append(ins, flowHash()...)
	default:
		ins = append(ins, bpf.LoadExtension{Num: bpf.ExtRand})
	}
	ins = append(ins, bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(sum)})
	upTo := 0
	for i, t := range p.targets {
		if weights[i] == 0 {
			continue
		}
		if upTo += weights[i]; upTo == sum {
			return append(ins, bpf.RetConstant{Val: uint32(t)})
		}
		ins = append(ins,
			bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(upTo), SkipFalse: 1},
			bpf.RetConstant{Val: uint32(t)})
	}
	return ins
}

// flowHash leaves a hash of both addresses and ports in A. The kernel's own
// hash of a packet (SKF_AD_RXHASH) is 0 until something has asked for it.
func flowHash() []bpf.Instruction {
	// mix folds the word in A into scratch word 0, with the multipliers of
	// MurmurHash3.
	mix := []bpf.Instruction{
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 0xcc9e2d51},
		bpf.StoreScratch{Src: bpf.RegA, N: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 17},
		bpf.LoadScratch{Dst: bpf.RegX, N: 1},
		bpf.ALUOpX{Op: bpf.ALUOpXor},
		bpf.LoadScratch{Dst: bpf.RegX, N: 0},
		bpf.ALUOpX{Op: bpf.ALUOpXor},
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 5},
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 0xe6546b64},
		bpf.StoreScratch{Src: bpf.RegA, N: 0},
	}
	words := func(offs ...uint32) (ins []bpf.Instruction) {
		for _, off := range offs {
			ins = append(ins, bpf.LoadAbsolute{Off: netOff + off, Size: 4})
			ins = append(ins, mix...)
		}
		return ins
	}
	v4 := append(words(12, 16),
		bpf.LoadAbsolute{Off: netOff, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0f},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2},
		bpf.TAX{},
		bpf.LoadIndirect{Off: netOff, Size: 4}) // both ports
	v4 = append(v4, mix...)
	v6 := words(8, 12, 16, 20, 24, 28, 32, 36, 40)
	v4 = append(v4, bpf.Jump{Skip: uint32(len(v6))})
	ins := []bpf.Instruction{
		bpf.LoadConstant{Dst: bpf.RegA, Val: 0x9e3779b9},
		bpf.StoreScratch{Src: bpf.RegA, N: 0},
		bpf.LoadAbsolute{Off: netOff, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 4, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(v4))},
	}
	ins = append(append(ins, v4...), v6...)
	// finish: A = M[0]; A ^= A>>15; A *= c; A ^= A>>13
	for _, f := range []struct{ shift, mul uint32 }{{16, 0x85ebca6b}, {13, 0xc2b2ae35}, {16, 1}} {
		ins = append(ins,
			bpf.LoadScratch{Dst: bpf.RegA, N: 0},
			bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: f.shift},
			bpf.LoadScratch{Dst: bpf.RegX, N: 0},
			bpf.ALUOpX{Op: bpf.ALUOpXor},
			bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: f.mul},
			bpf.StoreScratch{Src: bpf.RegA, N: 0})
	}
	return ins
}
