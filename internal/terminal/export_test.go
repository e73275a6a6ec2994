package terminal

// Clip is clip.
func Clip(s string, n int) string { return clip(s, n) }
