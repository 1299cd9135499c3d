"""What the model is taught about inference engines: one entry per concept, in the course's own words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Concept:
    """`what` defines it, `why` says what it changes, `how` is what a person does with it. Full sentences."""

    name: str
    what: str
    why: str
    how: str


def _c(name: str, what: str, why: str, how: str) -> Concept:
    return Concept(name, what, why, how)


CONCEPTS: tuple[Concept, ...] = (
    _c(
        "prefill",
        "Prefill is the phase in which an engine reads the whole prompt at once and fills the KV cache.",
        "It is limited by arithmetic, because many tokens share each weight that is read.",
        "Shorten the prompt or reuse a cached prefix to make it faster.",
    ),
    _c(
        "decode",
        "Decode is the phase in which an engine writes the answer, one token per step and sequence.",
        "It is limited by memory bandwidth, because every step reads all the weights for a single token.",
        "Use smaller weights, a larger batch or speculative decoding to get more from each step.",
    ),
    _c(
        "TTFT",
        "TTFT, the time to first token, runs from sending the request to the first token with content.",
        "It is what a user feels as the delay before an answer begins, and it grows with the prompt.",
        "Start the clock at the intended send time and ignore the empty role event.",
    ),
    _c(
        "TPOT",
        "TPOT, the time per output token, is the mean time between tokens after the first one.",
        "It sets how fast the text appears once the answer has begun.",
        "Divide the time after the first token by the number of tokens that came after the first event.",
    ),
    _c(
        "ITL",
        "ITL, the inter-token latency, is the gap between two tokens of one stream.",
        "Single long gaps show pauses that an average hides.",
        "Spread the gap of an event over all the tokens that the event carried.",
    ),
    _c(
        "throughput",
        "Throughput is the number of output tokens per second over all requests together.",
        "It decides how many users one machine can serve and what a token costs.",
        "Raise the concurrency until the latency limit is reached, and report both.",
    ),
    _c(
        "goodput",
        "Goodput is the rate of requests that meet every stated latency limit.",
        "A server may be busy and useless when its answers come too late.",
        "State limits for TTFT and TPOT, then count only the requests that keep them all.",
    ),
    _c(
        "the KV cache",
        "The KV cache keeps the keys and values of all earlier tokens, so that they are computed once.",
        "It grows with every token of every sequence and often decides how many requests fit.",
        "Limit the context length, share prefixes or store the cache in eight bits.",
    ),
    _c(
        "PagedAttention",
        "PagedAttention stores the KV cache in small blocks that need not lie next to each other.",
        "Memory is no longer reserved for the longest possible answer, so more sequences fit.",
        "It is on by default in vLLM, and the block size is a setting of the server.",
    ),
    _c(
        "prefix caching",
        "Prefix caching keeps the KV blocks of a prompt, so that the next prompt with the same start can skip them.",
        "Long shared instructions are then read once instead of once per request.",
        "Put the common part first, and compare against a run with the cache switched off.",
    ),
    _c(
        "RadixAttention",
        "RadixAttention is the prefix cache of SGLang, a tree of token sequences with their KV rows.",
        "Requests that branch from one conversation find the longest common start by themselves.",
        "Read the cached tokens in the usage block to see whether it was hit.",
    ),
    _c(
        "continuous batching",
        "Continuous batching lets a request join or leave the batch at every step.",
        "Nobody waits for the longest answer of a fixed batch, so the machine stays full.",
        "Send requests at once and let the engine form the batch; do not group them by hand.",
    ),
    _c(
        "chunked prefill",
        "Chunked prefill cuts a long prompt into pieces and mixes them with the decoding of others.",
        "Running answers no longer stop while a long prompt is read.",
        "Tune the number of tokens per step: small chunks favour smooth decoding, large ones a short TTFT.",
    ),
    _c(
        "speculative decoding",
        "Speculative decoding lets a cheap draft propose several tokens which the large model checks in one step.",
        "Checking several tokens costs little more than making one, since the weights are read once.",
        "Measure it against the same server without it, and check that greedy output is unchanged.",
    ),
    _c(
        "Medusa",
        "Medusa adds trained heads to a model, each of which guesses a token further ahead.",
        "The guesses come for almost nothing, because they reuse the hidden state of the last token.",
        "Train the heads for exactly this model; untrained heads give no speedup.",
    ),
    _c(
        "EAGLE-3",
        "EAGLE-3 is a small draft network that reads features from low, middle and high layers.",
        "It predicts tokens rather than features and is trained on its own guesses, so long drafts stay accurate.",
        "Use a draft that was trained for the model, and read the acceptance length in the metrics.",
    ),
    _c(
        "acceptance length",
        "The acceptance length is the mean number of new tokens per step of the large model.",
        "With the cost of drafting it gives the speedup that speculation can reach.",
        "Compute it as one plus the accepted tokens divided by the number of drafts.",
    ),
    _c(
        "n-gram speculation",
        "N-gram speculation proposes the words that followed the same phrase earlier in the text.",
        "It needs no draft model and helps most when the answer repeats the prompt.",
        "Try it on summaries, code edits and extraction; expect little on free prose.",
    ),
    _c(
        "quantization",
        "Quantization stores weights with fewer bits, such as eight or four instead of sixteen.",
        "Decoding becomes faster because fewer bytes are read for each token.",
        "Name the precision beside every figure and check the quality of the answers.",
    ),
    _c(
        "FP8",
        "FP8 is a floating-point format of eight bits for weights, activations or the KV cache.",
        "It halves the bytes of bf16 and keeps most of the quality.",
        "Choose a checkpoint that was made for it, or let the engine convert the weights.",
    ),
    _c(
        "NVFP4",
        "NVFP4 is a format of four bits with a scale for every small block of values.",
        "It brings the weights to about a quarter of bf16 on hardware that supports it.",
        "Compare its answers with those of a wider format before you rely on it.",
    ),
    _c(
        "GGUF",
        "GGUF is the single-file format of llama.cpp, with weights, tokenizer and settings inside.",
        "One file is easy to copy and to load on any machine.",
        "Write it from the original weights and choose a type such as Q8_0 or Q4_K_M.",
    ),
    _c(
        "safetensors",
        "Safetensors is a file format for weights that holds numbers only and no code.",
        "Loading it cannot run a program, and the file can be mapped into memory.",
        "Prefer it to pickled files and keep remote code switched off.",
    ),
    _c(
        "the roofline",
        "The roofline of decoding is the memory bandwidth divided by the bytes read per token.",
        "No figure for one stream without speculation can lie above it, so it exposes mistakes.",
        "Compute it before the run and look again at any result that is higher.",
    ),
    _c(
        "memory bandwidth",
        "Memory bandwidth is the number of bytes that a machine can read from memory per second.",
        "It sets the speed of decoding, since every step reads the weights.",
        "Measure it with a stream test or take it from the data sheet: a DGX Spark has 273 GB per second.",
    ),
    _c(
        "unified memory",
        "Unified memory is one pool that the processor and the graphics unit share.",
        "A large model fits, but everything else on the machine takes from the same pool.",
        "Run one engine at a time and leave some of the pool free.",
    ),
    _c(
        "tensor parallelism",
        "Tensor parallelism splits every layer over several devices.",
        "Each device reads a part of the weights, so a step takes less time.",
        "Use it inside one machine, where the links between the devices are fast.",
    ),
    _c(
        "a warm-up",
        "A warm-up is a set of requests that are sent before the measurement and thrown away.",
        "The first request compiles kernels and fills caches, so it says nothing about the rest.",
        "Send twice the concurrency and start the clock only afterwards.",
    ),
    _c(
        "closed-loop load",
        "Closed-loop load keeps a fixed number of requests in flight.",
        "It finds the highest throughput, but a slow server is asked less often and looks better than it is.",
        "State the concurrency beside every figure.",
    ),
    _c(
        "open-loop load",
        "Open-loop load sends requests at times that do not depend on the answers.",
        "It shows the queue that real users would meet.",
        "Draw the gaps from a Poisson process and start each clock at the planned arrival.",
    ),
    _c(
        "coordinated omission",
        "Coordinated omission is the error of not counting the time a request waited to be sent.",
        "It hides exactly the delays that matter under load.",
        "Measure from the planned send time, never from the moment a free slot was found.",
    ),
    _c(
        "a percentile",
        "A percentile is the value below which a given share of the samples lies.",
        "The tail tells what the unlucky users get, which a mean does not.",
        "Report the 99th only with a hundred samples or more; else give the largest value and the count.",
    ),
    _c(
        "server-sent events",
        "Server-sent events are the lines by which a server streams tokens over HTTP.",
        "The user can read the answer while it is being written.",
        "Read each line that starts with data, and stop at the line that says [DONE].",
    ),
    _c(
        "the chat template",
        "The chat template turns a list of messages into the one text that the model was trained on.",
        "A wrong template gives poor answers without any error.",
        "Use the template that is stored with the tokenizer.",
    ),
    _c(
        "a token",
        "A token is a piece of text, often a word or a part of one, that the model reads as one number.",
        "Prices, limits and speeds all count tokens rather than words.",
        "Take the count from the usage block of the answer, not from the number of events.",
    ),
    _c(
        "temperature",
        "Temperature scales how evenly the next token is drawn from the candidates.",
        "At zero the most likely token is always taken, so runs can be compared.",
        "Set it to zero for measurements and higher for variety.",
    ),
    _c(
        "structured output",
        "Structured output limits the next token to those that keep the text valid under a schema or grammar.",
        "A program can then read the answer without repairing it.",
        "Send a JSON schema with the request and check the answer with a parser.",
    ),
    _c(
        "a health check",
        "A health check is a small request that says whether a server can take work.",
        "Loading a model takes time, and a port that is open is not yet a model that answers.",
        "Ask the health address until it returns 200, with a deadline.",
    ),
    _c(
        "a load balancer",
        "A load balancer spreads requests over several servers.",
        "One slow or dead server then harms fewer users.",
        "Send related requests to the same server, so that its prefix cache is hit.",
    ),
    _c(
        "a rate limit",
        "A rate limit is the number of requests that one user may send in a given time.",
        "It keeps a single client from filling the queue for everybody.",
        "Answer with status 429 and say when to try again.",
    ),
    _c(
        "a token bucket",
        "A token bucket is a counter that refills at a steady rate and is spent by requests.",
        "It allows short bursts while it keeps the long-run rate.",
        "Choose the size for the burst and the refill rate for the average.",
    ),
    _c(
        "a circuit breaker",
        "A circuit breaker stops sending requests to a server that keeps failing.",
        "Clients get a quick error instead of a long wait, and the server can recover.",
        "Open it after several failures and let one request through after a pause.",
    ),
    _c(
        "backpressure",
        "Backpressure is the way in which a full server tells its clients to slow down.",
        "Without it the queue grows and every answer comes too late.",
        "Limit the queue and refuse new work early.",
    ),
    _c(
        "vLLM",
        "vLLM is a serving engine with a paged KV cache, continuous batching and an OpenAI-compatible server.",
        "It runs many models and gives high throughput under load.",
        "Start it with vllm serve and the name of the model; it listens on port 8000.",
    ),
    _c(
        "SGLang",
        "SGLang is a serving engine and a small language for programs that call a model many times.",
        "Its radix tree shares common prefixes among requests.",
        "Start it with the module sglang.launch_server; it listens on port 30000.",
    ),
    _c(
        "llama.cpp",
        "llama.cpp is an engine in C++ that runs GGUF files on processors and graphics cards alike.",
        "It starts within a second and needs few other packages.",
        "Start llama-server with the file; it listens on port 8080.",
    ),
    _c(
        "Ollama",
        "Ollama is a tool that downloads models and serves them with little setup.",
        "It is convenient for one user on one machine.",
        "Raise OLLAMA_NUM_PARALLEL before you measure several users; it listens on port 11434.",
    ),
    _c(
        "TensorRT-LLM",
        "TensorRT-LLM is the engine of NVIDIA for its own graphics cards.",
        "It brings kernels that are tuned for each generation of hardware.",
        "Start it with trtllm-serve and the name of the model; it needs a graphics card.",
    ),
    _c(
        "ahead-of-time compilation",
        "Ahead-of-time compilation builds a program for known shapes before it is used.",
        "It pays at build time and wins at run time, as long as the shapes match.",
        "Choose the shapes that your requests really have.",
    ),
    _c(
        "CUDA graphs",
        "CUDA graphs record a whole step of kernels and replay it with a single call.",
        "They remove the cost of launching each kernel, which matters when steps are short.",
        "Leave them on, and switch to eager mode only to compare or to find an error.",
    ),
    _c(
        "attention",
        "Attention lets each token gather information from the tokens before it.",
        "Its cost in a step grows with the number of tokens in the context.",
        "Keep the context as short as the task allows.",
    ),
    _c(
        "grouped-query attention",
        "Grouped-query attention lets several query heads share one pair of key and value heads.",
        "The KV cache shrinks by the size of the group.",
        "Count the key and value heads, not the query heads, when you compute its size.",
    ),
    _c(
        "preemption",
        "Preemption means that the engine pauses a running request because the KV cache is full.",
        "The paused request must be computed again, so its latency jumps.",
        "Lower the number of parallel sequences or give the cache more memory.",
    ),
    _c(
        "the scheduler",
        "The scheduler decides at every step which requests run and how many tokens each may use.",
        "It trades the first token of new requests against the next token of running ones.",
        "Watch the numbers of running and waiting requests in the metrics.",
    ),
    _c(
        "an ablation",
        "An ablation is a run with one part switched off and everything else unchanged.",
        "Only the difference between the two runs shows what the part is worth.",
        "Interleave the two variants and repeat them several times.",
    ),
)
