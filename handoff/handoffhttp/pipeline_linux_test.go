package handoffhttp_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestPipelineMoves has clients that always have another request in the
// pipeline, so that net/http's buffer holds a part of one whenever a request is
// done: they move after that one, with all that they have sent since.
func TestPipelineMoves(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		end := len(k.text)
		header := strings.Index(k.text, "\r\n\r\n") + 4
		// What the server has of the request when it is replaced.
		for _, cut := range []int{4, 10, header - 1, header, header + 1, end - 1} {
			if cut > end || cut == end && header != end {
				continue
			}
			t.Run(fmt.Sprintf("%s %d", k.name, cut), func(t *testing.T) {
				t.Parallel()
				l := newLine(t, nil, nil)
				l.block("/a")
				c := l.dial()
				c.send(get + k.text[:cut])
				l.waitEntered()
				g := l.replace()
				eventually(t, "the linger begins", g.s.Lingers)
				var rest strings.Builder
				rest.WriteString(k.text[cut:])
				for _, k := range kinds {
					rest.WriteString(k.text)
				}
				c.send(rest.String() + strings.Repeat(post, 100) + get[:3])
				l.release("/a")
				c.want(1, "GET", "/a")
				c.want(1, k.method, k.path)
				gen := 2
				if cut >= header-1 {
					// Its background reader may have the last byte of the header. If
					// the body begins in the buffer, its remaining length is unknown.
					gen = 0
				}
				for _, k := range kinds {
					c.want(gen, k.method, k.path)
				}
				for range 100 {
					c.want(gen, "POST", "/b")
				}
				if r := g.gone(t); r.Moved != 1 {
					t.Fatalf("linger: %+v, want one connection moved", r)
				}
				c.send(get[3:])
				c.want(2, "GET", "/a")
			})
		}
	}
}
