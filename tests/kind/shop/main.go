// Command shop runs in the pods of cluster tests: a small shop application, its clients, and a packet capture.
//
// It is one static binary without dependencies; names are resolved by Go's own resolver.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// commands by name; each parses its own arguments and ends when the context does.
var commands = map[string]func(context.Context, []string) error{
	"front":   front,
	"cart":    cart,
	"echo":    echo,
	"get":     get,
	"ask":     ask,
	"load":    load,
	"capture": capture,
}

const usage = `usage:
  shop front --listen :8080 --cart http://cart:8080
  shop cart --listen :8080 --redis redis:6379
  shop echo --listen :7000
  shop get [-n TIMES] [-t SECONDS] URL
  shop ask [-n TIMES] [-every 50ms] [-t 5s] [-X METHOD] [-H NAME:VALUE]... URL
  shop load (--url URL | --tcp HOST:PORT) [--rate PER_SECOND] [--duration 30s] [--out FILE]
  shop capture --iface eth0 --port 15008 --marker TEXT --seconds N
`

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	// As pid 1 of a container the process would not end at SIGTERM by itself.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := commands[os.Args[1]](ctx, os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "shop %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
