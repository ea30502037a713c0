// Go's net/http: HTTP/2 with ten streams on one connection, and HTTP/1.1. ADDRESS SECONDS
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	seconds, _ := strconv.Atoi(os.Args[2])
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	var all sync.WaitGroup
	for _, streams := range []int{1, 10} {
		all.Add(1)
		go func(streams int) { defer all.Done(); run(os.Args[1], streams, end) }(streams)
	}
	all.Wait()
}

func run(address string, streams int, end time.Time) {
	protocol := map[bool]string{true: "HTTP/2", false: "HTTP/1.1"}[streams > 1]
	name := "Go " + strings.TrimPrefix(runtime.Version(), "go") + " net/http, " + protocol
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: streams > 1,
	}}
	var mutex sync.Mutex
	answered, failed := 0, 0
	pids, ports := map[string]bool{}, map[string]bool{}
	ask := func() {
		body := []byte{}
		answer, err := client.Get("https://" + address + "/who")
		if err == nil {
			body, err = io.ReadAll(answer.Body)
			answer.Body.Close()
		}
		words := strings.Fields(string(body))
		mutex.Lock()
		defer mutex.Unlock()
		if err != nil || len(words) != 2 {
			failed++
			fmt.Fprintln(os.Stderr, name, err, words)
			return
		}
		answered++
		pids[words[0]], ports[words[1]] = true, true
	}
	ask() // the others find its connection
	var all sync.WaitGroup
	for i := 0; i < streams; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for time.Now().Before(end) {
				ask()
				time.Sleep(5 * time.Millisecond)
			}
		}()
	}
	all.Wait()
	fmt.Printf("%s|%d|%d|%d|%d\n", name, answered, failed, len(ports), len(pids))
}
