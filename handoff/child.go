package handoff

// child is a successor's process that we started, or had tableflip start.
type child struct {
	pid    int           // 0 if it is not known
	kill   func()        // to no effect on an ended one
	exited chan error    // yields its end, once
	done   chan struct{} // closed when it has ended and was waited for
}

func newChild(kill func()) *child {
	return &child{kill: kill, exited: make(chan error, 1), done: make(chan struct{})}
}
