// Package signals receives the stop and upgrade signals of the process, and gives them
// back.
package signals
