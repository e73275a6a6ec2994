// Package policy holds no code: its tests read the sources of this module and
// fail where they break a rule of the house. Exceptions are listed beside the
// rules, each with its reason.
package policy
