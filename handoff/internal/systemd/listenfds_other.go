//go:build !linux

package systemd

import "github.com/seed-11c92bf9/baton/handoff/internal/wire"

func kindOf(int) (wire.SocketKind, error) { return 0, errNoSocket }
