package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// outcome is the result of one request: a response with any status, or an error.
type outcome struct {
	Status  int               `json:"status,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	Error   string            `json:"error,omitempty"`
}

// headerFlags collects -H flags.
type headerFlags http.Header

func (h headerFlags) String() string { return "" }

func (h headerFlags) Set(text string) error {
	name, value, found := strings.Cut(text, ":")
	if !found {
		return errors.New("want NAME:VALUE")
	}
	http.Header(h).Add(name, strings.TrimSpace(value))
	return nil
}

// ask requests a URL repeatedly, each time on a new connection, and prints each result as one line of JSON.
// Redirects are not followed, and no status counts as a failure.
func ask(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("ask", flag.ExitOnError)
	times := flags.Int("n", 1, "how many times")
	every := flags.Duration("every", 0, "pause between two requests")
	limit := flags.Duration("t", requestMax, "how long each may take")
	method := flags.String("X", http.MethodGet, "method")
	headers := headerFlags{}
	flags.Var(headers, "H", "NAME:VALUE; Host is the authority")
	_ = flags.Parse(args)
	if flags.NArg() != 1 {
		return errors.New("which URL?")
	}
	client := newConnections(*limit)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	out := json.NewEncoder(os.Stdout)
	for i := range *times {
		if i > 0 && *every > 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(*every):
			}
		}
		request, err := http.NewRequestWithContext(ctx, *method, flags.Arg(0), nil)
		if err != nil {
			return err
		}
		request.Header = http.Header(headers).Clone()
		request.Host = request.Header.Get("Host")
		if err := out.Encode(send(client, request)); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
	}
	return nil
}

func send(client *http.Client, request *http.Request) outcome {
	response, err := client.Do(request)
	if err != nil {
		return outcome{Error: err.Error()}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, bodyMax))
	if err != nil {
		return outcome{Status: response.StatusCode, Error: err.Error()}
	}
	return outcome{Status: response.StatusCode, Headers: flat(response.Header), Body: strings.TrimSpace(string(body))}
}

// flat is a header with names in lower case and the values of one name joined.
func flat(header http.Header) map[string]string {
	lines := make(map[string]string, len(header))
	for name, values := range header {
		lines[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	return lines
}
