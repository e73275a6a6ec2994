package slogger

import (
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// New makes a logger that writes to l. Trace is a level below debug. The handler of l
// chooses the level: SetLevel has no effect.
func New(l *slog.Logger) hclog.Logger { return &logger{l: l} }

// levelTrace is hclog's Trace among slog's levels.
const levelTrace = slog.LevelDebug - 4

type logger struct {
	l    *slog.Logger
	name string
	args []any
}

var _ hclog.Logger = (*logger)(nil)

func slogLevel(l hclog.Level) slog.Level {
	switch l {
	case hclog.Trace:
		return levelTrace
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	}
	return slog.LevelInfo
}

func (s *logger) Log(level hclog.Level, msg string, args ...any) {
	if level == hclog.Off {
		return
	}
	s.l.Log(context.Background(), slogLevel(level), msg, args...)
}

func (s *logger) Trace(msg string, args ...any) { s.Log(hclog.Trace, msg, args...) }
func (s *logger) Debug(msg string, args ...any) { s.Log(hclog.Debug, msg, args...) }
func (s *logger) Info(msg string, args ...any)  { s.Log(hclog.Info, msg, args...) }
func (s *logger) Warn(msg string, args ...any)  { s.Log(hclog.Warn, msg, args...) }
func (s *logger) Error(msg string, args ...any) { s.Log(hclog.Error, msg, args...) }

func (s *logger) enabled(l slog.Level) bool { return s.l.Enabled(context.Background(), l) }

func (s *logger) IsTrace() bool { return s.enabled(levelTrace) }
func (s *logger) IsDebug() bool { return s.enabled(slog.LevelDebug) }
func (s *logger) IsInfo() bool  { return s.enabled(slog.LevelInfo) }
func (s *logger) IsWarn() bool  { return s.enabled(slog.LevelWarn) }
func (s *logger) IsError() bool { return s.enabled(slog.LevelError) }

func (s *logger) ImpliedArgs() []any { return s.args }

func (s *logger) With(args ...any) hclog.Logger {
	return &logger{l: s.l.With(args...), name: s.name, args: append(append([]any{}, s.args...), args...)}
}

func (s *logger) Name() string { return s.name }

func (s *logger) Named(name string) hclog.Logger {
	if s.name != "" {
		name = s.name + "." + name
	}
	return s.ResetNamed(name)
}

func (s *logger) ResetNamed(name string) hclog.Logger {
	return &logger{l: s.l.With("logger", name), name: name, args: s.args}
}

func (s *logger) SetLevel(hclog.Level) {}

func (s *logger) GetLevel() hclog.Level {
	for _, l := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn, hclog.Error} {
		if s.enabled(slogLevel(l)) {
			return l
		}
	}
	return hclog.Off
}

func (s *logger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(s.l.Handler(), slog.LevelInfo)
}

func (s *logger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return s.StandardLogger(o).Writer()
}
