package reuseport

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// settleTime is how long awaitGrace waits where the kernel can't tell. A packet
// is processed in microseconds.
const settleTime = 50 * time.Millisecond

// awaitGrace returns when every packet that began its way through the kernel
// before the call has ended it. A SYN that the old program has given to a member
// may not be in the list of handshakes when the new one is attached:
// reuseport_attach_prog does not wait for packets that run the old one.
//
// MEMBARRIER_CMD_GLOBAL is synchronize_rcu (kernel/sched/membarrier.c), and the
// kernel handles a packet within one RCU read section. It is unprivileged and
// takes a few ticks. Kernels that run with nohz_full refuse it.
func awaitGrace(ctx context.Context) error {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno == 0 {
		return nil
	}
	if err := sleep(ctx, settleTime); err != nil {
		return fmt.Errorf("wait for packets under way: %w", err)
	}
	return nil
}
