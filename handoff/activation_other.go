//go:build !linux

package handoff

import "github.com/seed-11c92bf9/baton/internal/sdnotify"

func activate(sdnotify.Inherited) (activated, error) { return activated{}, errNoSocket }
