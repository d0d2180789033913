package main

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// listen listens on a channel over a connection of its own, and calls receive with each payload, in a goroutine of its
// own. receive may use the connection. stop ends it and returns its error, if it had one.
func listen(ctx context.Context, url, channel string, receive func(ctx context.Context, conn *pgx.Conn, payload string) error) (stop func() error, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		conn.Close(ctx)
		return nil, err
	}
	listening, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		defer conn.Close(context.WithoutCancel(ctx))
		defer close(ended)
		for {
			n, err := conn.WaitForNotification(listening)
			if err == nil {
				err = receive(listening, conn, n.Payload)
			}
			if listening.Err() != nil {
				return
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	return func() error {
		cancel()
		return <-ended
	}, nil
}
