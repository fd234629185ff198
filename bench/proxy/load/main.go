// Load keeps a number of requests in flight through a proxy and reports, as one JSON object, what they cost the proxy:
// CPU time of its process by the kernel's accounting, per request and per streamed event, without the warm-up.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

type workload struct {
	url         string
	concurrency int
	stream      bool
	tokens      int
	gapUS       int
	burst       int
	promptBytes int
	fresh       bool
}

type tally struct {
	requests, events, errors int
	latency, first           []float64 // milliseconds
}

type report struct {
	Seconds       float64 `json:"seconds"`
	Requests      int     `json:"requests"`
	Events        int     `json:"events"`
	Errors        int     `json:"errors"`
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

func (w workload) body(text string, number int) []byte {
	return []byte(fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":"%d %s"}],"stream":%v,"max_tokens":%d}`,
		number, text, w.stream, w.tokens))
}

func (w workload) one(client *http.Client, body []byte, seen *tally) {
	request, err := http.NewRequest("POST", w.url, bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Close = w.fresh
	if w.gapUS > 0 {
		request.Header.Set("x-gap-us", strconv.Itoa(w.gapUS))
		request.Header.Set("x-burst", strconv.Itoa(w.burst))
	}
	start := time.Now()
	response, err := client.Do(request)
	if err != nil {
		seen.errors++
		return
	}
	defer response.Body.Close()
	events, complete := w.read(response.Body, start, seen)
	if response.StatusCode != http.StatusOK || !complete {
		seen.errors++
		return
	}
	seen.requests++
	seen.events += events
	seen.latency = append(seen.latency, milliseconds(start))
}

// read takes an answer to its end; a stream is complete when its last event is [DONE] and no token is missing.
func (w workload) read(body io.Reader, start time.Time, seen *tally) (int, bool) {
	if !w.stream {
		length, err := io.Copy(io.Discard, body)
		return 0, err == nil && length > 0
	}
	events, done := 0, false
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadSlice('\n')
		if bytes.HasPrefix(line, []byte("data: ")) {
			if events == 0 {
				seen.first = append(seen.first, milliseconds(start))
			}
			events++
			done = bytes.HasPrefix(line, []byte("data: [DONE]"))
		}
		if err != nil {
			return events, err == io.EOF && done && events > w.tokens
		}
	}
}

func milliseconds(since time.Time) float64 { return time.Since(since).Seconds() * 1e3 }

func (w workload) run(client *http.Client, text string, lasting time.Duration) tally {
	var (
		group sync.WaitGroup
		mutex sync.Mutex
		sum   tally
	)
	end := time.Now().Add(lasting)
	spread := time.Duration(w.tokens*w.gapUS) * time.Microsecond / time.Duration(max(w.concurrency, 1))
	for worker := 0; worker < w.concurrency; worker++ {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			var seen tally
			time.Sleep(spread * time.Duration(worker)) // streams in different phases
			for number := 0; time.Now().Before(end); number++ {
				w.one(client, w.body(text, worker*1_000_000+number), &seen)
			}
			mutex.Lock()
			defer mutex.Unlock()
			sum.requests += seen.requests
			sum.events += seen.events
			sum.errors += seen.errors
			sum.latency = append(sum.latency, seen.latency...)
			sum.first = append(sum.first, seen.first...)
		}(worker)
	}
	group.Wait()
	time.Sleep(time.Until(end)) // with no requests at all: what the proxy does by itself
	return sum
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
	flag.IntVar(&w.concurrency, "c", 32, "requests in flight; 0: none, to see what the proxy costs idle")
	flag.BoolVar(&w.stream, "stream", false, "ask for streams")
	flag.IntVar(&w.tokens, "tokens", 64, "tokens of an answer")
	flag.IntVar(&w.gapUS, "gap-us", 0, "microseconds between tokens")
	flag.IntVar(&w.burst, "burst", 1, "tokens that the engine writes at once")
	flag.IntVar(&w.promptBytes, "prompt", 2000, "bytes of the prompt")
	flag.BoolVar(&w.fresh, "fresh", false, "a new connection per request")
	pid := flag.Int("pid", 0, "process whose CPU time is counted")
	seconds := flag.Float64("seconds", 5, "length of the measurement")
	warmup := flag.Float64("warm-up", 1, "seconds before it")
	flag.Parse()

	client := &http.Client{
		Transport: &http.Transport{MaxIdleConns: 10000, MaxIdleConnsPerHost: 10000, DisableCompression: true},
		Timeout:   2 * time.Minute,
	}
	text := strings.Repeat("lorem ipsum ", w.promptBytes/12)
	w.run(client, text, time.Duration(*warmup*float64(time.Second)))
	cpu, start := cpuSeconds(*pid), time.Now()
	seen := w.run(client, text, time.Duration(*seconds*float64(time.Second)))
	elapsed, used := time.Since(start).Seconds(), cpuSeconds(*pid)-cpu
	result := report{
		Seconds: elapsed, Requests: seen.requests, Events: seen.events, Errors: seen.errors,
		CPUSeconds:    used,
		CPUPerRequest: used / float64(max(seen.requests, 1)) * 1e6,
		CPUPerEvent:   used / float64(max(seen.events, 1)) * 1e6,
		CPUPerSecond:  used / elapsed * 1e6,
		CoreShare:     used / elapsed,
		RSSMiB:        rssMiB(*pid),
		LatencyP50:    quantile(seen.latency, .5), LatencyP99: quantile(seen.latency, .99),
		FirstP50: quantile(seen.first, .5), FirstP99: quantile(seen.first, .99),
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}
