package selfsigned_test

import (
	"crypto/tls"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/selfsigned"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func TestMain(m *testing.M) { testmain.Run(m) }

func TestWrite(t *testing.T) {
	t.Parallel()
	cert, key, err := selfsigned.Write(t.TempDir(), "host")
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Leaf.VerifyHostname("host"); err != nil {
		t.Error(err)
	}
}
