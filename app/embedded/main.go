// The embedded broker: kfake (franz-go) as a small process, for `deskrisk demo` and for tests where no Java is.
// It prints "LISTENING host:port" once it serves and ends when its standard input closes.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

func main() {
	port := flag.Int("port", 0, "port on 127.0.0.1; 0: any free port")
	dataDir := flag.String("data-dir", "", "persist here; empty: memory only")
	flag.Parse()

	if *port == 0 {
		probe, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fail(err)
		}
		*port = probe.Addr().(*net.TCPAddr).Port
		probe.Close()
	}
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.Ports(*port)}
	if *dataDir != "" {
		opts = append(opts, kfake.DataDir(*dataDir))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		fail(err)
	}
	fmt.Printf("LISTENING 127.0.0.1:%d\n", *port)

	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		done <- syscall.SIGTERM
	}()
	// everything is in memory: expired and superseded records have to go
	tidy := time.NewTicker(20 * time.Second)
	defer tidy.Stop()
	for {
		select {
		case <-tidy.C:
			cluster.ApplyRetention()
			cluster.Compact()
			continue
		case <-done:
		}
		break
	}
	cluster.Close()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "embedded broker:", err)
	os.Exit(1)
}
