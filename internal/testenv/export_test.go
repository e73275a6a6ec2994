package testenv

// Decide is decide, with the verdict as a word.
func Decide(features map[string]func() error, require, feature string) (word, text string) {
	v, text := decide(features, require, feature)
	return string(v), text
}

// Probes returns the probes by name.
func Probes() map[string]func() error { return features }
