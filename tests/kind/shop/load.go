package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// inFlightMax bounds the requests that are open at once; one more counts as failed.
	inFlightMax = 2000
	// failuresShown is how many failures are printed a second, so that the totals stay among the last lines.
	failuresShown = 8
)

// totals of requests. Every request that was sent ends as ok or failed.
type totals struct {
	Sent   int `json:"sent"`
	OK     int `json:"ok"`
	Failed int `json:"failed"`
}

func (t *totals) add(more totals) {
	t.Sent += more.Sent
	t.OK += more.OK
	t.Failed += more.Failed
}

// progress is printed each second: At whole seconds have passed, and every request that began in the first Through of
// them has ended. The totals are of those requests alone, so the difference of two lines is a window that counts only
// requests that began inside it.
type progress struct {
	At      int `json:"at"`
	Through int `json:"through"`
	totals
}

// summary is the last line.
type summary struct {
	totals
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

// record collects the results of requests: one line each in the file, and progress every second on stdout.
type record struct {
	mutex sync.Mutex
	start time.Time
	out   *bufio.Writer
	// seconds holds, by the second in which they began, the requests that progress does not count yet.
	seconds   map[int]totals
	progress  progress
	shown     int
	durations []float64
}

func newRecord(out *bufio.Writer) *record {
	return &record{start: time.Now(), out: out, seconds: map[int]totals{}}
}

func (r *record) count(begun time.Time, more totals) {
	second := int(begun.Sub(r.start) / time.Second)
	entry := r.seconds[second]
	entry.add(more)
	r.seconds[second] = entry
}

// begin counts a request that begins now.
func (r *record) begin() time.Time {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	begun := time.Now()
	r.count(begun, totals{Sent: 1})
	return begun
}

func (r *record) ended(begun time.Time, err error) {
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	offset, took := milliseconds(begun.Sub(r.start)), milliseconds(time.Since(begun))
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.durations = append(r.durations, took)
	text := "ok"
	if err == nil {
		r.count(begun, totals{OK: 1})
	} else {
		r.count(begun, totals{Failed: 1})
		text = err.Error()
		if r.shown < failuresShown {
			fmt.Printf("failed at %.0f ms after %.0f ms: %s\n", offset, took, text)
		}
		r.shown++
	}
	fmt.Fprintf(r.out, "%.3f %.3f %s\n", offset, took, text)
}

func (r *record) second() {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.shown = 0
	_ = r.out.Flush()
	r.progress.At = int(time.Since(r.start) / time.Second)
	for r.progress.Through < r.progress.At {
		entry := r.seconds[r.progress.Through]
		if entry.Sent != entry.OK+entry.Failed {
			break
		}
		r.progress.add(entry)
		delete(r.seconds, r.progress.Through)
		r.progress.Through++
	}
	_ = json.NewEncoder(os.Stdout).Encode(r.progress)
}

func (r *record) summary() summary {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	slices.Sort(r.durations)
	at := func(share float64) float64 {
		if len(r.durations) == 0 {
			return 0
		}
		return r.durations[int(share*float64(len(r.durations)-1))]
	}
	all := r.progress.totals
	for _, entry := range r.seconds {
		all.add(entry)
	}
	return summary{totals: all, P50: at(0.5), P99: at(0.99), Max: at(1)}
}

func load(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	target := flags.String("url", "", "request this, each time on a new connection")
	tcp := flags.String("tcp", "", "or hold one connection to this echo server")
	rate := flags.Float64("rate", 20, "requests begun per second, whether or not earlier ones have ended")
	duration := flags.Duration("duration", 30*time.Second, "how long requests are begun")
	path := flags.String("out", os.DevNull, "file for one line a request: start ms, duration ms, ok or error")
	_ = flags.Parse(args)
	if (*target == "") == (*tcp == "") || *rate <= 0 {
		return errors.New("give one of --url and --tcp, and a rate over 0")
	}
	file, err := os.Create(*path)
	if err != nil {
		return err
	}
	defer file.Close()
	ctx, cancel := context.WithTimeout(ctx, *duration)
	defer cancel()
	if *target != "" {
		untilAnswered(ctx, *target)
	}
	record := newRecord(bufio.NewWriter(file))
	go everySecond(ctx, record)
	interval := time.Duration(float64(time.Second) / *rate)
	if *target != "" {
		request(ctx, record, interval, *target)
	} else {
		hold(ctx, record, interval, *tcp)
	}
	_ = record.out.Flush()
	return json.NewEncoder(os.Stdout).Encode(record.summary())
}

func everySecond(ctx context.Context, record *record) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			record.second()
		}
	}
}

// untilAnswered waits until the target has answered once: a Service refuses connections until its endpoints reached the
// node, and requests that began before that are no part of the load.
func untilAnswered(ctx context.Context, target string) {
	client := newConnections(time.Second)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := fetch(ctx, client, target); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// request is an open loop: a slow response delays no other request. Requests that were started may end after the duration.
func request(ctx context.Context, record *record, interval time.Duration, target string) {
	client := newConnections(requestMax)
	slots := make(chan struct{}, inFlightMax)
	var open sync.WaitGroup
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			open.Wait()
			return
		case <-ticker.C:
		}
		begun := record.begin()
		select {
		case slots <- struct{}{}:
		default:
			record.ended(begun, errors.New("too many requests are open"))
			continue
		}
		open.Go(func() {
			_, err := fetch(context.WithoutCancel(ctx), client, target)
			<-slots
			record.ended(begun, err)
		})
	}
}

// hold sends lines over one connection and waits for each to be echoed. A lost connection counts as one failure
// and is opened again.
func hold(ctx context.Context, record *record, interval time.Duration, address string) {
	var connection net.Conn
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			if connection != nil {
				_ = connection.Close()
			}
			return
		case <-ticker.C:
		}
		begun := record.begin()
		var err error
		if connection == nil {
			connection, err = net.DialTimeout("tcp", address, requestMax)
		}
		if err == nil {
			err = roundTrip(connection)
		}
		record.ended(begun, err)
		if err != nil && connection != nil {
			_ = connection.Close()
			connection = nil
		}
	}
}

func roundTrip(connection net.Conn) error {
	line := []byte(time.Now().Format(time.RFC3339Nano) + "\n")
	if err := connection.SetDeadline(time.Now().Add(requestMax)); err != nil {
		return err
	}
	if _, err := connection.Write(line); err != nil {
		return err
	}
	back := make([]byte, len(line))
	if _, err := io.ReadFull(connection, back); err != nil {
		return err
	}
	if string(back) != string(line) {
		return fmt.Errorf("sent %q, got %q", line, back)
	}
	return nil
}
