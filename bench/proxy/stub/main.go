// Stub is an engine that costs next to nothing: it answers OpenAI's chat and completions paths with fixed text.
// It listens on many addresses at once, prints them as a JSON list, and reports a vLLM's metrics.
//
// Request headers: x-gap-us sets the time between tokens, x-burst the tokens written at once.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

const plainAnswer = `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello world"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12}}`

const models = `{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"stub","max_model_len":1048576}]}`

const metrics = `vllm:num_requests_running{engine="0",model_name="m"} 1
vllm:num_requests_waiting{engine="0",model_name="m"} 0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.1
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100000"} 1.0
`

var event = []byte(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}` + "\n\n")

// usage is what a vLLM puts at the end of each event that is to tell usage.
const usage = `,"usage":{"prompt_tokens":512,"total_tokens":641,"completion_tokens":129}}` + "\n\n"

// tokens finds how many tokens a body asks for; to decode all of a megabyte would cost more than the proxies do. Some
// of them write the fields in another order.
func tokens(body []byte) (int, bool) {
	name := []byte(`"max_tokens":`)
	at := bytes.LastIndex(body, name)
	if at < 0 {
		return 0, false
	}
	digits := body[at+len(name):]
	end := bytes.IndexAny(digits, ",}")
	count, err := strconv.Atoi(string(digits[:max(end, 0)]))
	return count, err == nil
}

func header(r *http.Request, name string, otherwise int) int {
	value, err := strconv.Atoi(r.Header.Get(name))
	if err != nil {
		return otherwise
	}
	return value
}

func generate(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	count, ok := tokens(body)
	if err != nil || !ok {
		http.Error(w, `{"error":{"message":"bad body","type":"BadRequestError","code":400}}`, http.StatusBadRequest)
		return
	}
	if !bytes.Contains(body, []byte(`"stream":true`)) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, plainAnswer)
		return
	}
	gap := time.Duration(header(r, "x-gap-us", 0)) * time.Microsecond
	burst := header(r, "x-burst", 1)
	one := event
	if bytes.Contains(body, []byte(`"continuous_usage_stats":true`)) {
		one = append(event[:len(event)-3:len(event)-3], usage...)
	}
	events := bytes.Repeat(one, burst)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	flusher := w.(http.Flusher)
	for sent := 0; sent < count; sent += burst {
		if _, err := w.Write(events); err != nil {
			return
		}
		flusher.Flush()
		time.Sleep(gap * time.Duration(burst))
	}
	io.WriteString(w, "data: [DONE]\n\n")
}

func text(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		io.WriteString(w, body)
	}
}

func main() {
	count := flag.Int("n", 16, "addresses to listen on")
	flag.Parse()
	http.HandleFunc("/v1/chat/completions", generate)
	http.HandleFunc("/v1/completions", generate)
	http.HandleFunc("/v1/models", text("application/json", models))
	http.HandleFunc("/metrics", text("text/plain; version=0.0.4", metrics))
	http.HandleFunc("/health", text("text/plain", ""))
	addresses := make([]string, *count)
	for i := range addresses {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		addresses[i] = listener.Addr().String()
		go func() { log.Fatal(http.Serve(listener, nil)) }()
	}
	if err := json.NewEncoder(os.Stdout).Encode(addresses); err != nil {
		log.Fatal(err)
	}
	fmt.Fprintln(os.Stderr, "stub: serving")
	select {}
}
