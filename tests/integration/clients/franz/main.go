// Command franz sends what a plan says with franz-go: BROKERS PLAN.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func bytesOf(text string) []byte {
	if text == "-" {
		return nil
	}
	found, err := base64.StdEncoding.DecodeString(text)
	check(err)
	return found
}

func send(brokers, codec, mode string, plan [][]string) {
	ctx := context.Background()
	options := []kgo.Opt{kgo.SeedBrokers(brokers), kgo.ProducerBatchCompression(codecs[codec]),
		kgo.ProducerLinger(20 * time.Millisecond)}
	inTransaction := mode == "committed" || mode == "aborted"
	if inTransaction {
		options = append(options, kgo.TransactionalID("franz-"+codec+"-"+mode))
	} else if mode == "plain" {
		options = append(options, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
	}
	client, err := kgo.NewClient(options...)
	check(err)
	defer client.Close()
	if inTransaction {
		check(client.BeginTransaction())
	}
	for _, x := range plan {
		ms, err := strconv.ParseInt(x[6], 10, 64)
		check(err)
		record := &kgo.Record{Topic: x[2], Key: bytesOf(x[3]), Value: bytesOf(x[4]), Timestamp: time.UnixMilli(ms)}
		if x[5] == "1" {
			record.Headers = []kgo.RecordHeader{{Key: "origin", Value: []byte{0xff, 0, 1}}, {Key: "none"}}
		}
		client.Produce(ctx, record, func(_ *kgo.Record, err error) { check(err) })
	}
	check(client.Flush(ctx))
	if inTransaction {
		check(client.EndTransaction(ctx, kgo.TransactionEndTry(mode == "committed")))
	}
}

func main() {
	file, err := os.Open(os.Args[2])
	check(err)
	plans, order := map[string][][]string{}, []string{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		x := strings.Split(lines.Text(), "\t")
		key := x[0] + "\t" + x[1]
		if plans[key] == nil {
			order = append(order, key)
		}
		plans[key] = append(plans[key], x)
	}
	check(lines.Err())
	for _, key := range order {
		codec, mode, _ := strings.Cut(key, "\t")
		send(os.Args[1], codec, mode, plans[key])
	}
}
