// The program of the scenarios in Go: net/http on the fd that LISTEN_FDS names, READY=1, and http.Server.Shutdown on SIGTERM.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

func notify(text string) {
	// Go's net takes the @ of an abstract name as sd_notify(3) writes it.
	if to := os.Getenv("NOTIFY_SOCKET"); to != "" {
		if c, err := net.Dial("unixgram", to); err == nil {
			defer c.Close()
			io.WriteString(c, text)
		}
	}
}

func main() {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		panic("LISTEN_PID is not this process")
	}
	listener, err := net.FileListener(os.NewFile(3, "http"))
	if err != nil {
		panic(err)
	}
	var draining atomic.Bool
	http.HandleFunc("/pid", func(w http.ResponseWriter, r *http.Request) {
		if draining.Load() {
			w.Header().Set("Connection", "close")
		}
		fmt.Fprintln(w, os.Getpid())
	})
	server := &http.Server{}
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		<-stopped
		// Shutdown closes idle connections at once, and so does SetKeepAlivesEnabled(false): whoever is just sending loses the request. For
		// a while they are answered once more, and told.
		draining.Store(true)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		server.Shutdown(ctx)
		close(done)
	}()
	notify("READY=1\nSTATUS=Go serves")
	server.Serve(listener)
	<-done
}
