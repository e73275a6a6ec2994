// Package terminal prints lines that stay and, on a terminal, one live line below
// them.
package terminal
