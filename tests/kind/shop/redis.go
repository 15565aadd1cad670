package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// bulkMax bounds a value that Redis may send, in bytes.
const bulkMax = 1 << 16

// countVisit increments key over a connection of its own and reads it back.
func countVisit(ctx context.Context, address, key string) (string, error) {
	dialer := net.Dialer{Timeout: requestMax}
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(requestMax)); err != nil {
		return "", err
	}
	reader := bufio.NewReader(connection)
	if _, err := command(connection, reader, "INCR", key); err != nil {
		return "", err
	}
	return command(connection, reader, "GET", key)
}

// command sends one command of the Redis protocol (RESP2) and reads its reply.
func command(w io.Writer, r *bufio.Reader, words ...string) (string, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&text, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := io.WriteString(w, text.String()); err != nil {
		return "", err
	}
	return reply(r)
}

func reply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("reading Redis's reply: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errors.New("Redis sent an empty line")
	}
	switch rest := line[1:]; line[0] {
	case '+', ':':
		return rest, nil
	case '-':
		return "", errors.New("Redis says " + rest)
	case '$':
		return bulk(r, rest)
	default:
		return "", fmt.Errorf("Redis sent %q", line)
	}
}

func bulk(r *bufio.Reader, length string) (string, error) {
	n, err := strconv.Atoi(length)
	if err != nil || n < 0 || n > bulkMax {
		return "", fmt.Errorf("Redis sent a value of length %q", length)
	}
	value := make([]byte, n+len("\r\n"))
	if _, err := io.ReadFull(r, value); err != nil {
		return "", err
	}
	return string(value[:n]), nil
}
