//go:build !race

package handoffhttp_test

const underRace = false
