package flows

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// The layout of a table: what never changes, in JSON after its length; the state, and how
// often regions have changed; and a region for each lane, with the clients that the
// lane's process has kept.
const (
	stateAt    = 4 << 10
	changesAt  = stateAt + 8
	regionsAt  = 8 << 10
	regionSize = 32 << 10
	regionHead = 8  // sum, count
	clientSize = 18 // address, port
)

// A header is what the first process has chosen for good.
type header struct {
	Version int `json:"version"`
	Lanes   int `json:"lanes"`
	Key     key `json:"key"`
	IDs     IDs `json:"ids"`
	// Shared says that a process reads lane 0 that has no lock.
	Shared bool `json:"shared,omitempty"`
}

// A table is the file that the processes of an address share.
type table struct {
	header
	shared int // passed on; without a lock
	own    int // a file description of this process, which has its locks

	memory []byte // the file up to the regions
}

// newTable makes the file.
func newTable(h header) (*table, error) {
	h.Version = 1
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if len(text) > stateAt-4 {
		return nil, fmt.Errorf("%w: the description of the IDs is too long", failure.Unsupported)
	}
	f, err := fdx.NewBlob("flows")
	if err != nil {
		return nil, err
	}
	defer f.Close() // a duplicate stays
	if _, err := f.WriteAt(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), 0); err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(text, 4); err != nil {
		return nil, err
	}
	if err := f.Truncate(regionsAt + int64(h.Lanes)*regionSize); err != nil {
		return nil, err
	}
	fd, err := fdx.Dup(f)
	if err != nil {
		return nil, err
	}
	// It is in the memory of all: no process may cut it off.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl(F_ADD_SEALS)", err), fdx.Close(fd))
	}
	return openTable(fd)
}

// openTable opens the table of another process. It takes ownership of fd.
func openTable(fd int) (*table, error) {
	t := &table{shared: fd, own: -1}
	if err := t.open(); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *table) open() (err error) {
	// Locks belong to a file description (F_OFD_SETLK, fcntl(2)), and this process needs
	// one of its own.
	t.own, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", t.shared), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: open the table of the lanes again: %w: mount proc(5)", failure.Unsupported, os.NewSyscallError("open", err))
	}
	var size [4]byte
	if err := t.read(size[:], 0); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > stateAt-4 {
		return fmt.Errorf("%w: the table of the lanes is damaged", failure.Transfer)
	}
	text := make([]byte, n)
	if err := t.read(text, 4); err != nil {
		return err
	}
	if err := json.Unmarshal(text, &t.header); err != nil {
		return fmt.Errorf("%w: the table of the lanes: %w", failure.Transfer, err)
	}
	if t.Version != 1 || t.Lanes < MinLanes || t.Lanes > MaxLanes || t.IDs.check() != nil {
		return fmt.Errorf("%w: the table of the lanes has version %d and %d lanes", failure.Transfer, t.Version, t.Lanes)
	}
	var st unix.Stat_t
	if err := unix.Fstat(t.own, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Size < regionsAt+int64(t.Lanes)*regionSize {
		return fmt.Errorf("%w: the table of the lanes has %d bytes", failure.Transfer, st.Size)
	}
	t.memory, err = unix.Mmap(t.own, 0, regionsAt, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return os.NewSyscallError("mmap", err)
}

func (t *table) close() error {
	var errs []error
	if t.memory != nil {
		errs = append(errs, os.NewSyscallError("munmap", unix.Munmap(t.memory)))
	}
	for _, fd := range []int{t.own, t.shared} {
		if fd >= 0 {
			errs = append(errs, fdx.Close(fd))
		}
	}
	return errors.Join(errs...)
}

func (t *table) read(p []byte, at int64) error {
	n, err := unix.Pread(t.own, p, at)
	if err == nil && n < len(p) {
		err = unix.EIO
	}
	return os.NewSyscallError("pread", err)
}

func (t *table) write(p []byte, at int64) error {
	_, err := unix.Pwrite(t.own, p, at)
	return os.NewSyscallError("pwrite", err)
}

// word is one of those that processes change at the same time.
func (t *table) word(at int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&t.memory[at])) // aligned to 8 bytes
}

func (s state) word() uint64 { return uint64(s.turn)<<32 | uint64(uint32(s.lane)) }

// state returns which lane gets what belongs to no flow.
func (t *table) state() (state, error) {
	w := t.word(stateAt).Load()
	s := state{uint32(w >> 32), int(uint32(w))}
	if s.lane >= t.Lanes {
		return state{}, fmt.Errorf("%w: lane %d of %d", failure.Transfer, s.lane, t.Lanes)
	}
	return s, nil
}

// swap makes a state another, and reports false if it is not that.
func (t *table) swap(old, next state) bool {
	return t.word(stateAt).CompareAndSwap(old.word(), next.word())
}

// changes counts calls of setKept.
func (t *table) changes() uint64 { return t.word(changesAt).Load() }

// setKept has the clients of a lane replaced.
func (t *table) setKept(lane int, clients []netip.AddrPort) error {
	b := make([]byte, regionHead, regionHead+len(clients)*clientSize)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(clients)))
	for _, c := range clients {
		ip := c.Addr().As16()
		b = append(b, ip[:]...)
		b = binary.LittleEndian.AppendUint16(b, c.Port())
	}
	binary.LittleEndian.PutUint32(b, crc32.ChecksumIEEE(b[4:]))
	defer t.word(changesAt).Add(1)
	return t.write(b, regionOf(lane))
}

func regionOf(lane int) int64 { return regionsAt + int64(lane)*regionSize }

// kept returns the clients of a lane.
func (t *table) kept(lane int) ([]netip.AddrPort, error) {
	const tries = 10 // its process may write at this moment
	for try := 0; ; try++ {
		b := make([]byte, regionHead+MaxKept*clientSize)
		if err := t.read(b, regionOf(lane)); err != nil {
			return nil, err
		}
		sum, n := binary.LittleEndian.Uint32(b), int(binary.LittleEndian.Uint32(b[4:]))
		if sum == 0 && n == 0 {
			return nil, nil // never written
		}
		if n <= MaxKept && crc32.ChecksumIEEE(b[4:regionHead+n*clientSize]) == sum {
			clients := make([]netip.AddrPort, n)
			for i := range clients {
				c := b[regionHead+i*clientSize:]
				clients[i] = netip.AddrPortFrom(netip.AddrFrom16([16]byte(c)).Unmap(), binary.LittleEndian.Uint16(c[16:]))
			}
			return clients, nil
		}
		if try == tries {
			return nil, fmt.Errorf("%w: the flows of lane %d are damaged", failure.Transfer, lane)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// take locks the byte at an offset, and reports false if another process has it.
func (t *table) take(at int64) (bool, error) {
	err := unix.FcntlFlock(uintptr(t.own), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1})
	if err == unix.EAGAIN || err == unix.EACCES {
		return false, nil
	}
	return err == nil, os.NewSyscallError("fcntl(F_OFD_SETLK)", err)
}

func (t *table) giveBack(at int64) error {
	err := unix.FcntlFlock(uintptr(t.own), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: at, Len: 1})
	return os.NewSyscallError("fcntl(F_OFD_SETLK)", err)
}

// taken reports whether another process has the lane.
func (t *table) taken(lane int) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: regionOf(lane), Len: 1}
	err := unix.FcntlFlock(uintptr(t.own), unix.F_OFD_GETLK, &l)
	return l.Type != unix.F_UNLCK, os.NewSyscallError("fcntl(F_OFD_GETLK)", err)
}

// turnTimeout bounds the wait for another process that attaches its program, and is
// stopped.
const turnTimeout = time.Second

// inTurn runs f while no other process does; it goes ahead at the timeout. So the kernel
// has no older program even for a moment, unless a process is stopped.
func (t *table) inTurn(f func() error) error {
	for until := time.Now().Add(turnTimeout); ; time.Sleep(time.Millisecond) {
		ok, err := t.take(stateAt)
		if err != nil {
			return err
		}
		if ok {
			defer func() { _ = t.giveBack(stateAt) }() // fails only on a closed descriptor
			return f()
		}
		if time.Now().After(until) {
			return f()
		}
	}
}
