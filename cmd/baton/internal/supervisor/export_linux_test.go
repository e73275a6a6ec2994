package supervisor

import (
	"time"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// News is the result of ParseNews.
type News struct {
	Ready, Stopping bool
	MainPID         int
	Extend          time.Duration
	Status          string
}

// ParseNews parses a notification without control messages.
func ParseNews(text string) News {
	return exported(parseNews(text, nil))
}

func exported(n news) News { return News{n.ready, n.stopping, n.mainPID, n.extend, n.status} }

// ListenNews receives notifications at a socket below base. It calls admits with the
// process ID of each sender, and each with each notification of those that it admits, and
// with the number of its descriptors, which it closes. The caller calls end.
func ListenNews(base string, admits func(int) bool, each func(News, int)) (path string, end func(), err error) {
	n, err := bindNotifySocket(base)
	if err != nil {
		return "", nil, err
	}
	done := make(chan struct{})
	go func() { // ends with close
		defer close(done)
		n.listen(func(f func()) { f() }, admits, func(one news) {
			defer fdx.Close(one.fds...)
			each(exported(one), len(one.fds))
		}, func() { _, _ = n.remake() })
	}()
	return n.path, func() { n.close(); <-done }, nil
}
