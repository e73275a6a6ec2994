// Package versions has this tree and older ones hand over to each other.
//
// The older tree comes from the clone's own history, so a shallow clone, or a
// tree without one, has its test skipped, and says so. The frames of each
// version of the protocol, which package wire's tests hold it against, are files
// in the tree.
package versions
