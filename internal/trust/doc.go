// Package trust says which users, and which folders, a process may rely on.
package trust
