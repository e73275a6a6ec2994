// Package versions has this tree and older ones hand over to each other.
package versions
