package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

// get fetches a URL repeatedly, each time on a new connection, and fails if any request fails.
func get(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("get", flag.ExitOnError)
	times := flags.Int("n", 1, "how many times")
	seconds := flags.Float64("t", requestMax.Seconds(), "seconds that each may take")
	_ = flags.Parse(args)
	if flags.NArg() != 1 {
		return errors.New("which URL?")
	}
	client := newConnections(time.Duration(*seconds * float64(time.Second)))
	failed := 0
	for range *times {
		body, err := fetch(ctx, client, flags.Arg(0))
		if err != nil {
			failed++
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		fmt.Println(strings.TrimSpace(string(body)))
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d failed", failed, *times)
	}
	return nil
}
