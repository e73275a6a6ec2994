package fdx

// SocketInfo is what the kernel says about a socket.
type SocketInfo struct {
	Domain    int    // SO_DOMAIN, such as AF_INET6
	Type      int    // SO_TYPE, such as SOCK_STREAM
	Protocol  int    // SO_PROTOCOL, such as IPPROTO_TCP
	Listening bool   // SO_ACCEPTCONN
	Sockname  []byte // sockaddr of getsockname(2), as the kernel wrote it
}

// Cred is the identity of a process that has to do with the other end of a unix
// socket. PID is 0 where it lives in a PID namespace that this one can't see.
type Cred struct {
	PID, UID, GID int
}
