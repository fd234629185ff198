// Load keeps requests coming through a proxy and reports, as one JSON object, what they cost the proxy: CPU time of its
// process by the kernel's accounting, over a window in which all is in full swing.
//
// With -rate requests are sent at that many a second, whatever the proxy does; without, each of -c workers sends its next
// when it has its answer, so that -c requests or streams are always open, streams in different phases.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

type workload struct {
	url         string
	concurrency int
	rate        float64
	stream      bool
	tokens      int
	gapUS       int
	burst       int
	text        string
	fresh       bool
}

// tally counts what happens while it is open.
type tally struct {
	open                     atomic.Bool
	requests, events, errors atomic.Int64
	mutex                    sync.Mutex
	latency, first           []float64 // milliseconds
}

type report struct {
	Seconds       float64 `json:"seconds"`
	Requests      int64   `json:"requests"`
	Events        int64   `json:"events"`
	Errors        int64   `json:"errors"`
	CPUSeconds    float64 `json:"cpuSeconds"`
	CPUPerRequest float64 `json:"cpuPerRequestMicroseconds"`
	CPUPerEvent   float64 `json:"cpuPerEventMicroseconds"`
	CPUPerSecond  float64 `json:"cpuPerSecondMicroseconds"`
	CoreShare     float64 `json:"coreShare"`
	RSSMiB        float64 `json:"rssMebibytes"`
	LatencyP50    float64 `json:"latencyP50Milliseconds"`
	LatencyP99    float64 `json:"latencyP99Milliseconds"`
	FirstP50      float64 `json:"firstEventP50Milliseconds"`
	FirstP99      float64 `json:"firstEventP99Milliseconds"`
}

// cpuSeconds sums the time that all threads of a process have run, which the kernel counts in nanoseconds.
func cpuSeconds(pid int) float64 {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	total := 0.0
	for _, file := range files {
		data, err := os.ReadFile(file)
		fields := strings.Fields(string(data))
		if err != nil || len(fields) == 0 {
			continue
		}
		nanoseconds, _ := strconv.ParseFloat(fields[0], 64)
		total += nanoseconds / 1e9
	}
	return total
}

func rssMiB(pid int) float64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, line := range strings.Split(string(data), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kib, _ := strconv.ParseFloat(fields[1], 64)
			return kib / 1024
		}
	}
	return 0
}

func (t *tally) fail() {
	if t.open.Load() {
		t.errors.Add(1)
	}
}

func (t *tally) note(samples *[]float64, since time.Time) {
	if t.open.Load() {
		t.mutex.Lock()
		*samples = append(*samples, time.Since(since).Seconds()*1e3)
		t.mutex.Unlock()
	}
}

func (w workload) one(ctx context.Context, client *http.Client, number, tokens int, seen *tally) {
	body := fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":"%d %s"}],"max_tokens":%d,"stream":%v}`,
		number, w.text, tokens, w.stream)
	request, err := http.NewRequestWithContext(ctx, "POST", w.url, strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer sk-0123456789")
	request.Close = w.fresh
	if w.gapUS > 0 {
		request.Header.Set("x-gap-us", strconv.Itoa(w.gapUS))
		request.Header.Set("x-burst", strconv.Itoa(w.burst))
	}
	start := time.Now()
	response, err := client.Do(request)
	if err != nil {
		seen.fail()
		return
	}
	defer response.Body.Close()
	if complete := w.read(response.Body, start, tokens, seen); response.StatusCode != http.StatusOK || !complete {
		seen.fail()
		return
	}
	if seen.open.Load() {
		seen.requests.Add(1)
		seen.note(&seen.latency, start)
	}
}

// read takes an answer to its end; a stream is complete when its last event is [DONE] and no token is missing.
func (w workload) read(body io.Reader, start time.Time, tokens int, seen *tally) bool {
	if !w.stream {
		length, err := io.Copy(io.Discard, body)
		return err == nil && length > 0
	}
	events, done := 0, false
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadSlice('\n')
		if bytes.HasPrefix(line, []byte("data: ")) {
			if events == 0 {
				seen.note(&seen.first, start)
			}
			events++
			if seen.open.Load() {
				seen.events.Add(1)
			}
			done = bytes.HasPrefix(line, []byte("data: [DONE]"))
		}
		if err != nil {
			return err == io.EOF && done && events > tokens
		}
	}
}

// work sends one request after the other until the context ends. The first stream of each worker is shorter, each by
// another length, so that streams end evenly spread.
func (w workload) work(ctx context.Context, client *http.Client, worker int, seen *tally) {
	between := time.Duration(0)
	if w.rate > 0 {
		between = time.Duration(float64(w.concurrency) / w.rate * float64(time.Second))
	}
	random := rand.New(rand.NewSource(int64(worker)))
	due := time.Now().Add(time.Duration(random.Float64() * float64(max(between, time.Second))))
	for number := 0; ctx.Err() == nil; number++ {
		wait := time.NewTimer(time.Until(due))
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		tokens := w.tokens
		if w.stream && number == 0 {
			tokens = max(w.burst, w.tokens*(worker+1)/w.concurrency)
		}
		w.one(ctx, client, worker*1_000_000+number, tokens, seen)
		due = due.Add(between)
		if late := time.Since(due); late > 0 {
			due = due.Add(late)
		}
	}
}

func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sort.Float64s(values)
	return values[int(q*float64(len(values)-1))]
}

func main() {
	var w workload
	flag.StringVar(&w.url, "url", "", "where to send requests")
	flag.IntVar(&w.concurrency, "c", 32, "requests in flight, at most; 0: none, to see what the proxy costs idle")
	flag.Float64Var(&w.rate, "rate", 0, "requests per second of all together; 0: each as soon as the one before is answered")
	flag.BoolVar(&w.stream, "stream", false, "ask for streams")
	flag.IntVar(&w.tokens, "tokens", 64, "tokens of an answer")
	flag.IntVar(&w.gapUS, "gap-us", 0, "microseconds between tokens")
	flag.IntVar(&w.burst, "burst", 1, "tokens that the engine writes at once")
	flag.BoolVar(&w.fresh, "fresh", false, "a new connection per request")
	promptBytes := flag.Int("prompt", 2000, "bytes of the prompt")
	pid := flag.Int("pid", 0, "process whose CPU time is counted")
	seconds := flag.Float64("seconds", 5, "length of the window")
	warmup := flag.Float64("warm-up", 2, "seconds before it")
	flag.Parse()
	w.text = strings.Repeat("lorem ipsum ", *promptBytes/12)

	client := &http.Client{Transport: &http.Transport{
		MaxIdleConns: 10000, MaxIdleConnsPerHost: 10000, DisableCompression: true, WriteBufferSize: 64 << 10,
	}}
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	var seen tally
	for worker := 0; worker < w.concurrency; worker++ {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			w.work(ctx, client, worker, &seen)
		}(worker)
	}
	time.Sleep(time.Duration(*warmup * float64(time.Second)))
	cpu, start := cpuSeconds(*pid), time.Now()
	seen.open.Store(true)
	time.Sleep(time.Duration(*seconds * float64(time.Second)))
	seen.open.Store(false)
	elapsed, used, rss := time.Since(start).Seconds(), cpuSeconds(*pid)-cpu, rssMiB(*pid)
	stop()
	group.Wait()
	result := report{
		Seconds: elapsed, Requests: seen.requests.Load(), Events: seen.events.Load(), Errors: seen.errors.Load(),
		CPUSeconds:    used,
		CPUPerRequest: used / float64(max(seen.requests.Load(), 1)) * 1e6,
		CPUPerEvent:   used / float64(max(seen.events.Load(), 1)) * 1e6,
		CPUPerSecond:  used / elapsed * 1e6,
		CoreShare:     used / elapsed,
		RSSMiB:        rss,
		LatencyP50:    quantile(seen.latency, .5), LatencyP99: quantile(seen.latency, .99),
		FirstP50: quantile(seen.first, .5), FirstP99: quantile(seen.first, .99),
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}
