//go:build linux

package ebpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// maxMembers is the size of the socket array.
const maxMembers = 1024

// Program is an SK_REUSEPORT program with its socket array. It is a
// [reuseport.Steerer]. Its methods may be called from any goroutine.
type Program struct {
	prog  *ebpf.Program
	socks *ebpf.Map // REUSEPORT_SOCKARRAY
	// list says which slots of socks get connections: list[0] is how many,
	// and the slots follow.
	list *ebpf.Map

	mu     sync.Mutex
	slots  map[uint64]uint32 // slot of socks by inode
	active []uint32          // as in list
	via    []syscall.Conn    // members through which to detach
}

var _ reuseport.Steerer = (*Program)(nil)

// New loads the program and tries it out on listeners of its own. Where the
// privilege is missing the error matches [io/fs.ErrPermission]; where the kernel
// can't do it, or does nothing, [errors.ErrUnsupported]. The caller closes the
// program, or gives it to [reuseport.Group.Use].
func New() (*Program, error) {
	p, err := load()
	if err != nil {
		return nil, err
	}
	if err := tryOut(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func load() (_ *Program, err error) {
	p := &Program{slots: make(map[uint64]uint32)}
	defer func() {
		if err != nil {
			_ = p.Close() // the other error says more
		}
	}()
	if p.socks, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "baton_socks", Type: ebpf.ReusePortSockArray, KeySize: 4, ValueSize: 8, MaxEntries: maxMembers,
	}); err != nil {
		return nil, explain("make a socket array", err)
	}
	if p.list, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "baton_list", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: maxMembers + 1,
	}); err != nil {
		return nil, explain("make an array", err)
	}
	p.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "baton_select", Type: ebpf.SkReuseport, AttachType: ebpf.AttachSkReuseportSelectOrMigrate,
		License: "Apache-2.0", Instructions: p.instructions(),
	})
	if err != nil {
		return nil, explain("load the program", err)
	}
	return p, nil
}

// instructions choose one of the listed sockets at random. If there is none, or
// it has just gone, the kernel chooses by hash.
func (p *Program) instructions() asm.Instructions {
	const (
		key  = -4 // of list
		slot = -8 // of socks
		pass = 1  // SK_PASS
	)
	lookup := func() asm.Instructions {
		return asm.Instructions{
			asm.LoadMapPtr(asm.R1, p.list.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, key),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "pass"),
		}
	}
	ins := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.StoreImm(asm.RFP, key, 0, asm.Word),
	}
	ins = append(ins, lookup()...)
	ins = append(ins,
		asm.LoadMem(asm.R7, asm.R0, 0, asm.Word),
		asm.JEq.Imm(asm.R7, 0, "pass"),
		asm.FnGetPrandomU32.Call(),
		asm.Mod.Reg32(asm.R0, asm.R7),
		asm.Add.Imm(asm.R0, 1),
		asm.StoreMem(asm.RFP, key, asm.R0, asm.Word),
	)
	ins = append(ins, lookup()...)
	return append(ins,
		asm.LoadMem(asm.R7, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.RFP, slot, asm.R7, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, p.socks.FD()),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, slot),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkSelectReuseport.Call(),
		asm.Mov.Imm(asm.R0, pass).WithSymbol("pass"),
		asm.Return(),
	)
}

// Join implements [reuseport.Steerer]. The group of the first socket gets the
// program.
func (p *Program) Join(c syscall.Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	inode, err := inodeOf(c)
	if err != nil {
		return err
	}
	if slot, ok := p.slots[inode]; ok {
		if slices.Contains(p.active, slot) {
			return nil
		}
		return p.activate(slot)
	}
	slot, err := p.freeSlot()
	if err != nil {
		return err
	}
	err = control(c, func(fd int) error { return p.socks.Put(slot, uint64(fd)) })
	if err != nil {
		return fmt.Errorf("put a listener into the socket array, which refuses MPTCP: %w", err)
	}
	p.slots[inode] = slot
	if err := p.activate(slot); err != nil {
		return err
	}
	if len(p.via) == 0 {
		err := control(c, func(fd int) error {
			return os.NewSyscallError("setsockopt(SO_ATTACH_REUSEPORT_EBPF)",
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, p.prog.FD()))
		})
		if err != nil {
			return err
		}
	}
	p.via = append(p.via, c)
	return nil
}

// freeSlot returns a slot that no socket has. The kernel empties the slots of
// sockets that are closed.
func (p *Program) freeSlot() (uint32, error) {
	used := make(map[uint32]bool, len(p.slots))
	for _, slot := range p.slots {
		used[slot] = true
	}
	for slot := range uint32(maxMembers) {
		if !used[slot] {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("more than %d members: %w", maxMembers, errors.ErrUnsupported)
}

// activate adds slot to the list: the entry first, so that the program never
// meets one that isn't written.
func (p *Program) activate(slot uint32) error {
	n := uint32(len(p.active))
	if err := p.list.Put(n+1, slot); err != nil {
		return err
	}
	if err := p.list.Put(uint32(0), n+1); err != nil {
		return err
	}
	p.active = append(p.active, slot)
	return nil
}

// Away implements [reuseport.Steerer].
func (p *Program) Away(leaving ...syscall.Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	away := make(map[uint64]bool)
	for _, c := range leaving {
		inode, err := inodeOf(c)
		if err != nil {
			return err
		}
		away[inode] = true
	}
	keep := slices.Clone(p.active)
	for inode := range away {
		keep = slices.DeleteFunc(keep, func(s uint32) bool { return s == p.slots[inode] })
	}
	if len(keep) == 0 {
		return errors.New("no member is left to get the connections")
	}
	// The last one goes into the place of one that leaves, and then the list
	// gets shorter: each of its states is a good one.
	for inode := range away {
		i := slices.Index(p.active, p.slots[inode])
		if i < 0 {
			continue
		}
		last := len(p.active) - 1
		if err := p.list.Put(uint32(i+1), p.active[last]); err != nil {
			return err
		}
		p.active[i] = p.active[last]
		if err := p.list.Put(uint32(0), uint32(last)); err != nil {
			return err
		}
		p.active = p.active[:last]
	}
	return nil
}

// Left implements [reuseport.Steerer].
func (p *Program) Left(c syscall.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.via = slices.DeleteFunc(p.via, func(v syscall.Conn) bool { return v == c })
	inode, err := inodeOf(c)
	if err != nil {
		return // closed already: its slot stays taken
	}
	delete(p.slots, inode)
}

// Migrates implements [reuseport.Steerer]: it is true, for New has tried it.
func (p *Program) Migrates() bool { return true }

// Close takes the program off its group and frees it. Sockets that it steered
// are chosen by hash from then on.
func (p *Program) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, c := range p.via {
		err := control(c, func(fd int) error {
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
		})
		if err == nil {
			break
		}
		// Closed meanwhile, or another program is on the group.
	}
	p.via = nil
	if p.prog != nil {
		errs = append(errs, p.prog.Close())
	}
	if p.socks != nil {
		errs = append(errs, p.socks.Close())
	}
	if p.list != nil {
		errs = append(errs, p.list.Close())
	}
	return errors.Join(errs...)
}
