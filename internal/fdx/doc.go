// Package fdx handles raw file descriptors: it duplicates, describes, wraps and
// closes them, and is the only place of this module that turns a net or os
// object into a descriptor and back.
//
// It exists because the ways of the standard library change shared state:
// (*net.TCPListener).File followed by (*os.File).Fd clears O_NONBLOCK on the
// open file description, which a duplicate shares with the live listener, so
// that a running server turns blocking. Nothing here ever does that.
//
// The words for a descriptor in the documentation are exact. "Takes ownership":
// the function closes it, or gives it to its result, in every case, errors
// included. "Borrows": the caller keeps it open for the call and closes it
// later. "Returns a descriptor the caller closes": a new one, close-on-exec
// from its first moment.
//
// All functions may be called from any goroutine. On systems other than Linux
// each returns an error that matches [errors.ErrUnsupported].
package fdx
