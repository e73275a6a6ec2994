package main

import (
	"context"
	"io"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// serveEcho serves an echo.Echo, which is an http.Handler: not Echo.Start, which makes
// its own listener.
func serveEcho(ctx context.Context, up *handoff.Upgrader, address string) error {
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	e := echo.New()
	e.POST("/", func(c echo.Context) error {
		body, err := io.ReadAll(c.Request().Body)
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, answer(body))
	})
	return handoffhttp.Run(ctx, up, &http.Server{Handler: e}, ln)
}
