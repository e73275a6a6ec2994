// Package reuseport is a draft; see the exported names.
package reuseport
