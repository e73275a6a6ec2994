// Package probes knows the connections that this process makes to its own
// listeners to find out which of them the kernel chooses, and keeps them from
// coming out of an Accept. It belongs to the process and not to a group of
// listeners: a probe of one group can come out of another group's listener.
package probes
