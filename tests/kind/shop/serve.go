package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// requestMax limits one request to another shop component.
	requestMax = 5 * time.Second
	// drainMax is how long running requests may take after SIGTERM.
	drainMax = 3 * time.Second
	// bodyMax is the largest response body that is read, in bytes.
	bodyMax = 1 << 20
)

// answer is the response of a shop component, as one line of JSON: its name, and the request as it arrived.
type answer struct {
	Pod     string            `json:"pod"`
	Version string            `json:"version,omitempty"`
	From    string            `json:"from"`
	Method  string            `json:"method"`
	Host    string            `json:"host"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers"`
	Marker  string            `json:"marker"`
	Visits  string            `json:"visits,omitempty"`
	Cart    json.RawMessage   `json:"cart,omitempty"`
}

func answerTo(r *http.Request) answer {
	return answer{
		Pod:     podName(),
		Version: os.Getenv("VERSION"),
		From:    r.RemoteAddr,
		Method:  r.Method,
		Host:    r.Host,
		Path:    r.URL.RequestURI(),
		Headers: flat(r.Header),
		Marker:  r.URL.Query().Get("marker"),
	}
}

func podName() string {
	if name := os.Getenv("POD_NAME"); name != "" {
		return name
	}
	name, _ := os.Hostname()
	return name
}

// newConnections is a client that never reuses a connection, so that every request uses the current state of the network.
func newConnections(limit time.Duration) *http.Client {
	return &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
}

// fetch returns the body of a successful response.
func fetch(ctx context.Context, client *http.Client, target string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, bodyMax))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}

// serve answers /healthz and /status/CODE itself and passes everything else to handle, until the context ends.
func serve(ctx context.Context, listen string, handle func(*http.Request) (answer, error)) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 200 || code > 599 {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		said, err := handle(r)
		if err != nil {
			http.Error(w, podName()+": "+err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(said)
	})
	server := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: requestMax}
	ended := make(chan error, 1)
	go func() {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.Background(), drainMax)
		defer cancel()
		ended <- server.Shutdown(drain)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return <-ended
}

func front(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("front", flag.ExitOnError)
	listen := flags.String("listen", ":8080", "address to listen on")
	cartURL := flags.String("cart", "http://cart:8080", "where the cart is")
	_ = flags.Parse(args)
	client := newConnections(requestMax)
	return serve(ctx, *listen, func(r *http.Request) (answer, error) {
		said := answerTo(r)
		body, err := fetch(r.Context(), client, *cartURL+"/?marker="+url.QueryEscape(said.Marker))
		if err != nil {
			return said, err
		}
		said.Cart = body
		return said, nil
	})
}

func cart(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("cart", flag.ExitOnError)
	listen := flags.String("listen", ":8080", "address to listen on")
	redis := flags.String("redis", "redis:6379", "where Redis is")
	_ = flags.Parse(args)
	return serve(ctx, *listen, func(r *http.Request) (answer, error) {
		said := answerTo(r)
		var err error
		said.Visits, err = countVisit(r.Context(), *redis, "visits:"+said.Marker)
		return said, err
	})
}

func echo(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("echo", flag.ExitOnError)
	listen := flags.String("listen", ":7000", "address to listen on")
	_ = flags.Parse(args)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	for {
		connection, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			_, _ = io.Copy(connection, connection)
		}()
	}
}
