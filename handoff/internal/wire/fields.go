package wire

// Each fields method gives a message's fields in ascending order of their tags:
// the one description that encoding, decoding and checking share. Never change
// the tag or the type of a field, and never use a tag again.

func (m *Hello) fields(c *codec) {
	c.uint32(1, &m.MinVersion)
	c.uint32(2, &m.MaxVersion)
	c.int64(3, &m.PID)
	c.text(4, &m.Build, MaxBuild)
	c.uint32(5, (*uint32)(&m.Via))
	c.uint32(6, &m.Mode)
}

func (m *Welcome) fields(c *codec) {
	c.uint32(1, &m.Version)
	c.uint64(2, &m.Generation)
	c.int64(3, &m.PID)
	c.text(4, &m.Build, MaxBuild)
	c.uint32(5, &m.Mode)
	c.uint32(6, &m.Sockets)
	c.uint32(7, &m.States)
	c.int64(8, (*int64)(&m.Probation))
	c.int64(9, (*int64)(&m.HangTimeout))
	c.int64(10, (*int64)(&m.ReadyTimeout))
}

func (m *Refuse) fields(c *codec) {
	c.uint32(1, (*uint32)(&m.Reason))
	c.text(2, &m.Text, MaxText)
}

func (m *Socket) fields(c *codec) {
	c.uint32(1, (*uint32)(&m.Kind))
	c.string(2, &m.Name, MaxName)
	c.string(3, &m.Network, MaxNetwork)
	c.string(4, &m.Address, MaxAddress)
	c.uint32(5, &m.Shard)
	c.string(6, &m.Bound, MaxAddress)
	c.int32(7, &m.Domain)
	c.int32(8, &m.SockType)
	c.int32(9, &m.Protocol)
	c.bool(10, &m.Listening)
	c.bytes(11, &m.Sockname, MaxSockname)
	c.uint32(12, &m.FileMode)
	c.uint64(13, &m.PathDev)
	c.uint64(14, &m.PathIno)
	c.uint32(15, (*uint32)(&m.Keeper))
	c.bool(16, &m.Leaving)
}

func (m *Sockets) fields(c *codec) {
	c.uint32(1, &m.Seq)
	c.uint32(2, &m.First)
	structs(c, 3, &m.Entries)
}

func (m *State) fields(c *codec) {
	c.string(1, &m.Name, MaxName)
	c.uint64(2, &m.Size)
}

func (m *States) fields(c *codec) {
	c.uint32(1, &m.Seq)
	structs(c, 2, &m.Entries)
}

func (m *Ack) fields(c *codec) {
	c.uint32(1, &m.Seq)
	c.uint32(2, &m.Taken)
}

func (m *Verified) fields(*codec) {}

func (m *Ready) fields(c *codec) {
	c.strings(1, &m.Conns, MaxName)
	c.bool(2, &m.Tells)
}

func (m *Paused) fields(c *codec) {
	c.int64(1, &m.Queue)
	c.int64(2, &m.HalfOpen)
	c.uint64(3, &m.Accepted)
}

func (m *Ping) fields(c *codec) {
	c.uint64(1, &m.Seq)
	c.bool(2, &m.Final)
}

func (m *Alive) fields(c *codec) {
	c.uint64(1, &m.Seq)
	c.uint64(2, &m.Accepted)
}

func (m *Commit) fields(*codec) {}

func (m *Committed) fields(c *codec) {
	c.uint64(1, &m.Accepted)
}

func (m *Abort) fields(c *codec) {
	c.text(1, &m.Text, MaxText)
}

func (m *Rollback) fields(c *codec) {
	c.text(1, &m.Text, MaxText)
}

func (m *RolledBack) fields(c *codec) {
	c.uint64(1, &m.Accepted)
}

func (m *Took) fields(*codec) {}

func (m *Conn) fields(c *codec) {
	c.string(1, &m.Name, MaxName)
	c.bytes(2, &m.State, MaxConnState)
}

func (m *Taking) fields(c *codec) {
	c.uint32(1, &m.Seq)
	c.uint32(2, &m.Index)
}

func (m *Conns) fields(c *codec) {
	c.uint32(1, &m.Seq)
	structs(c, 2, &m.Entries)
}

func (m *Linger) fields(c *codec) {
	c.uint64(1, &m.Open)
	c.uint64(2, &m.Moved)
	c.uint64(3, &m.Cut)
	c.int64(4, (*int64)(&m.Remaining))
}

func (m *EndLinger) fields(c *codec) {
	c.text(1, &m.Text, MaxText)
}

func (m *Bye) fields(c *codec) {
	c.uint64(1, &m.Open)
	c.uint64(2, &m.Moved)
	c.uint64(3, &m.Cut)
}

func (m *Adopt) fields(c *codec) {
	c.uint32(1, &m.Seq)
	c.uint32(2, &m.Version)
	c.uint64(3, &m.Generation)
	c.int64(4, &m.PID)
	c.text(5, &m.Build, MaxBuild)
}

func (m *Stderr) fields(*codec) {}

func (m *Released) fields(c *codec) {
	c.uint32(1, (*uint32)(&m.Kind))
	c.uint32(2, &m.Holders)
}

func (m *Account) fields(c *codec) {
	c.bytes(1, &m.Body, MaxBody)
}

func (m *Request) fields(c *codec) {
	c.string(1, &m.Op, MaxOp)
	c.bytes(2, &m.Body, MaxBody)
	c.uint32(3, &m.MinVersion)
	c.uint32(4, &m.MaxVersion)
}

func (m *Response) fields(c *codec) {
	c.bool(1, &m.Final)
	c.bytes(2, &m.Body, MaxBody)
	c.uint32(3, &m.Version)
}
