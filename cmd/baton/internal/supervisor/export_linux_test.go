package supervisor

import "time"

// News is the result of ParseNews.
type News struct {
	Ready, Stopping bool
	MainPID         int
	Extend          time.Duration
	Status          string
}

// ParseNews parses a notification without control messages.
func ParseNews(text string) News {
	n := parseNews(text, nil)
	return News{n.ready, n.stopping, n.mainPID, n.extend, n.status}
}
