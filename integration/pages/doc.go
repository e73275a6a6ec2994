// Package pages has tests of the programs in README.md and docs: each is built as a
// reader would paste it, and those that use Baton are upgraded.
package pages
