package handoffdebug_test

import (
	"testing"

	"github.com/seed-11c92bf9/baton/internal/testenv"
)

func TestReadme(t *testing.T) {
	t.Parallel()
	testenv.ReadmeLine(t, "../../README.md", "example_test.go", "mux.Handle(handoffdebug.")
}
