// Package slogger makes a logger of package hclog that writes to one of log/slog.
package slogger
