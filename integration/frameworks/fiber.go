package main

import (
	"context"
	"sync/atomic"

	"github.com/gofiber/fiber/v2"

	"github.com/seed-11c92bf9/baton/handoff"
)

// serveFiber serves a fiber.App, and so fasthttp. Each connection ends with its next
// response after the commit; not by App.Shutdown, which closes idle connections.
func serveFiber(ctx context.Context, up *handoff.Upgrader, address string) error {
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	var leaving atomic.Bool
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	app.Use(func(c *fiber.Ctx) error {
		if leaving.Load() {
			c.Context().SetConnectionClose()
		}
		return c.Next()
	})
	app.Post("/", func(c *fiber.Ctx) error { return c.SendString(answer(c.Body())) })
	return stay(ctx, up, func() error { return app.Listener(ln) }, func() { leaving.Store(true) })
}
