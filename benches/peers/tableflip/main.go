// SIGHUP: an upgrade. As in tableflip's own example with net/http.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
)

// How long an old process waits for its connections: DRAIN in ../src/lib.rs.
const drain = 10 * time.Second

func main() {
	runtime.GOMAXPROCS(1) // as the other servers run on one thread
	upgrader, err := tableflip.New(tableflip.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer upgrader.Stop()
	go func() {
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP)
		for range hangups {
			if err := upgrader.Upgrade(); err != nil {
				log.Println("the upgrade failed:", err)
			}
		}
	}()
	listener, err := upgrader.Listen("tcp", os.Getenv("PEERS_ADDRESS"))
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{Handler: http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(answer, "pid %d\n", os.Getpid())
	})}
	go func() {
		if err := server.Serve(listener); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	if err := upgrader.Ready(); err != nil {
		log.Fatal(err)
	}
	<-upgrader.Exit()
	deadline, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	_ = server.Shutdown(deadline)
}
