//go:build !linux

package spawn

import (
	"fmt"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// Explain adds that the start has failed.
func (p *Program) Explain(err error) error { return fmt.Errorf("%w: %w", failure.Start, err) }

func replaceStderr(int) error { return failure.Unsupported }

func placePipe(int, int) error { return failure.Unsupported }
