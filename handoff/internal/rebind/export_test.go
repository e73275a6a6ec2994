package rebind

// FailJoin has Join of o fail.
func FailJoin(o *Own, err error) { o.join = func(int) error { return err } }
