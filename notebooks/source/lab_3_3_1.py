# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 3.3.1: Engine Benchmark
#
# *Module 3.3, Model Deployment & Inference Engines. About 3 hours with the exercises; the measurements alone take a
# few minutes.*
#
# "Which inference engine is the fastest?" has no answer. *Fastest at what, for whom, on which machine, in which
# precision?* has one, and at the end of this lab you will have measured it yourself. You will:
#
# 1. take one streamed answer apart into **TTFT**, **TPOT** and **ITL**;
# 2. learn which statistics your sample can carry, and which it cannot;
# 3. compute the **roofline**: the decode speed that memory bandwidth allows, whatever the engine;
# 4. measure at least three real engines on the same prompts and the same weights;
# 5. turn the figures into a decision, for a use case rather than for a headline.
#
# Every figure below comes from an engine that ran on this machine while you watched. Where a figure was published by
# somebody else, it is drawn apart and names its source. If no engine answers, this lab fails, and that is on purpose:
# a benchmark that measured nothing should not look like one that did.
#
# **How to work.** Run the cells in order. Cells marked *Exercise* hold a function for you to write. The notebook runs
# through even when none is written, so you can first watch, then do. `lab.check(...)` answers at once.

# %% tags=["parameters"]
profile = "auto"  # or "cpu"
scale = "full"  # or "quick": fewer requests and repeats
out = "results"  # folder of the result file

# %% [markdown]
# `Lab` looks at the machine, says which engines can run here, and collects what we measure. Look at the list of
# engines: one that cannot run here is named with the reason and the remedy. It is never left out silently.

# %%
from labs_helpers import bench, machine, plots, references
from labs_helpers.lab import Lab
from labs_helpers.model import prompts

lab = Lab("3.3.1", profile=profile, scale=scale, out=out)

# %% [markdown]
# ## Part 1. One request, taken apart
#
# An engine answers in two phases. **Prefill** reads the whole prompt in one pass and fills the KV cache; it is bound by
# arithmetic. **Decode** then makes one token per pass, and each pass reads all the weights again; it is bound by memory
# bandwidth. A user feels the first as waiting and the second as reading speed:
#
# | metric | from | to |
# |---|---|---|
# | TTFT, time to first token | the moment the request *should* have been sent | the first event with content |
# | TPOT, time per output token | first content | last event, divided by the tokens after the first event |
# | ITL, inter-token latency | one token | the next |
# | E2E | the moment it should have been sent | the last event |
#
# We start one engine, llama.cpp, send it one chat request, and keep the arrival time of every event.

# %%
with lab.engine("llama.cpp") as server:
    question = prompts.chat_prompts(1, seed=1)
    one = await bench.run(server, question, chat=True, concurrency=1, output_tokens=48)
sample = one.samples[0]
print(sample.text)

# %% [markdown]
# Each tick is an event from the server. Look at the gap before the first tick: that is TTFT, and the prompt was
# processed in it. The even comb after it is decode.

# %%
plots.timeline(sample, engine=server.engine.name)

# %% [markdown]
# **What just happened?** The client stamped each chunk as it arrived and parsed it only afterwards, so that parsing
# does not disturb the timing. Two traps lie here. A server may send an *empty* first event (the role "assistant",
# without a word): it is no token and must not end TTFT. And one event may carry *several* tokens: who counts events
# instead of tokens reads a speed several times too low.
#
# ### Exercise 1: TPOT from events
#
# `events` is a list of `[time_in_seconds, tokens]`, in order of arrival; `completion_tokens` is the total the server
# reported. Return the seconds per output token *after the first content event*, or `None` when no token came after it.
# Tokens that arrived with the first content event were paid for in TTFT.


# %% labs={"exercise": "tpot"}
def tpot(events, completion_tokens):
    """Seconds per output token after the first event that carried tokens; None when there was none."""
    ### BEGIN SOLUTION
    content = [(time, tokens) for time, tokens in events if tokens > 0]
    if not content:
        return None
    (first, in_first), (last, _) = content[0], content[-1]
    after_first = completion_tokens - in_first
    return (last - first) / after_first if after_first > 0 else None
    ### END SOLUTION


lab.check("tpot", tpot)

# %% [markdown]
# Once your function passes, hold it against the bench on the answer you have just seen. They should agree.

# %%
events = [[event.time - sample.intended, event.tokens] for event in sample.events]
mine, theirs = tpot(events, sample.completion_tokens), sample.tpot_s
print(f"yours: {mine if mine is ... else f'{mine * 1e3:.2f} ms'}   bench: {theirs * 1e3:.2f} ms")

# %% [markdown]
# ## Part 2. How many samples does a percentile need?
#
# "P99 latency" is the figure everyone quotes: one request in a hundred is slower. With twelve samples there *is* no
# such request. The 99th percentile of twelve samples is their maximum with decimals, and it will be another number
# tomorrow. An honest function refuses.
#
# ### Exercise 2: a percentile that knows when to refuse
#
# Return the `q`-th percentile of `samples`, linearly interpolated between the two nearest (as `numpy.percentile` does).
# Raise `ValueError` when there are fewer than `100 / (100 - q)` samples: 2 for the median, 10 for P90, 100 for P99.


# %% labs={"exercise": "percentile"}
def percentile(samples, q):
    """The q-th percentile (0 <= q < 100) of the samples; ValueError when they are too few to have one."""
    ### BEGIN SOLUTION
    needed = 100 / (100 - q)
    if len(samples) < needed:
        raise ValueError(f"P{q} of {len(samples)} samples is noise: it needs at least {needed:.0f}")
    ordered = sorted(samples)
    position = (len(ordered) - 1) * q / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
    ### END SOLUTION


lab.check("percentile", percentile)

# %% [markdown]
# ## Part 3. The roofline: what the machine allows
#
# To decode one token, every weight is read once, and so is the KV cache of the tokens before it. If the memory delivers
# $B$ bytes per second and a token needs $b$ bytes, no engine makes more than $B / b$ tokens per second for one stream.
#
# A well-known table gives 40 tok/s for an 8B model in bf16 on a DGX Spark. The Spark's memory delivers 273 GB/s; 8
# billion weights of 2 bytes are 16 GB; $273 / 16 = 17$ tok/s. The figure cannot be true as labelled (it fits a 4-bit
# model). One division tells you which benchmarks to believe.
#
# ### Exercise 3: the roofline
#
# Return tokens per second. `bandwidth_gb_s` is in $10^9$ bytes per second, and each token of context adds
# `kv_bytes_per_token` to what one decode step reads.


# %% labs={"exercise": "roofline"}
def roofline(bandwidth_gb_s, parameters, bytes_per_weight, kv_bytes_per_token=0, context=0):
    """Tokens per second that memory bandwidth allows one stream."""
    ### BEGIN SOLUTION
    bytes_per_step = parameters * bytes_per_weight + kv_bytes_per_token * context
    return bandwidth_gb_s * 1e9 / bytes_per_step
    ### END SOLUTION


lab.check("roofline", roofline)

# %% [markdown]
# Now this machine's own bandwidth. On a small machine there is a second trap: a small model may fit into the
# processor's cache, where reading is several times faster than from memory. So we measure twice, once over a buffer the
# size of the weights, read again and again as decode does, and once over one far larger than the cache.

# %%
weights = server.model.bytes_per_token
near, far = machine.bandwidth(lab.machine, weights), machine.bandwidth(lab.machine)
for name, found in (("as large as the weights", near), ("larger than any cache", far)):
    print(f"{name:<24} {found}")
roof = machine.roofline(near, weights)
print(f"{weights / 1e6:.1f} MB per token in {server.precision}: at most {roof:.0f} tok/s for one stream")

# %% [markdown]
# **What just happened?** If the first figure is clearly higher than the second, the weights sit in the cache, and the
# second would have given a roof that a real engine can break. A measurement above the roof means the roof, the
# measurement or the label is wrong; the plots below flag it instead of drawing it as if it were true.
#
# ## Part 4. The benchmark
#
# One loop, the same work for every engine, one engine at a time (two at once would share the memory bandwidth that we
# want to measure). For each engine we record:
#
# - **start-up** time and **memory** (by themselves, when the `with` block ends);
# - **prefill** at several prompt lengths, each prompt unlike any other, so that no prefix cache can help;
# - **decode** for one stream, and **throughput** with 1, 4 and 16 streams.
#
# All engines get the same prompts, and `ignore_eos` with a fixed output length: an engine that stops early must not look
# fast. All serve the same weights in the same precision.

# %%
LENGTHS, CONCURRENCY = (64, 256, 1024), (1, 4, 16)
requests, tokens = lab.pick(quick=16, full=32), lab.pick(quick=32, full=64)
repeats = lab.pick(quick=3, full=8)

# %% [markdown]
# From each load only the metrics it was made for are kept. A prefill run with two output tokens has no decode rate worth
# recording, and with sixteen streams in flight "prefill" would mostly be waiting.


# %%
async def measure_prefill(server, length):
    """Unlike prompts of one length, one after the other."""
    work = [prompts.prefill_prompt(length, seed=i) for i in range(repeats)]
    run = await bench.run(server, work, concurrency=1, output_tokens=2, workload="prefill")
    lab.record(run.measurements("ttft", "prefill_throughput", "prompt_tokens"))


# %% [markdown]
# The chat load asks the other half: what one user feels, and what all of them get together.


# %%
async def measure_chat(server, streams):
    """The same chat requests for every engine, so many streams at a time."""
    work = prompts.chat_prompts(requests, seed=streams)
    run = await bench.run(server, work, chat=True, concurrency=streams, output_tokens=tokens, workload="chat")
    lab.record(run.measurements("ttft", "tpot", "e2e", "decode_throughput"))
    lab.record(run.measurements("output_throughput", "completion_tokens"))


# %% [markdown]
# Put together, this is what every engine goes through. Note that the engine is not named: each gets the same.


# %%
async def benchmark(server):
    """Prefill by prompt length, then throughput by concurrency."""
    for length in LENGTHS:
        await measure_prefill(server, length)
    for streams in CONCURRENCY:
        await measure_chat(server, streams)


# %% [markdown]
# Watch the order of magnitude change between engines, and which one gains from more streams.

# %%
for name in lab.engines():
    with lab.engine(name) as server:
        await benchmark(server)

# %% [markdown]
# One experiment beside the comparison: the same engine with the same weights, quantized to 8 bits. Decode reads a
# quarter of the bytes of fp32. How much of that becomes speed?

# %%
with lab.engine("llama.cpp", precision="q8_0") as server:
    await benchmark(server)

# %% [markdown]
# ### Start-up and memory
#
# What you pay before the first request. Memory is PSS: pages that the engine's processes share are counted once.

# %%
plots.startup_and_memory(lab.measurements())

# %% [markdown]
# **What just happened?** An engine that starts in a second can be started per job; one that needs half a minute wants
# to stay up. Note how little of the memory is the model.
#
# ### Prefill
#
# Prompt tokens per second of prefill, by prompt length. Look for the length at which an engine reaches its full rate:
# below it, fixed costs dominate.

# %%
rates = lab.measurements("prefill_throughput")
plots.lines(rates, "prefill_throughput", x="prompt_tokens")

# %% [markdown]
# ### Decode against the roofline
#
# One stream. The line is the roof for each precision, from the bandwidth you measured. The distance to it is what the
# engine spends on anything other than reading weights.

# %%
plots.decode_vs_roofline(lab.measurements())

# %% [markdown]
# **What just happened?** On a small model the distance is large for everyone: a step takes a millisecond or less, and
# launching operations, sampling and sending the answer cost as much as reading the weights. On an 8B model the same
# engines come close to the line. A small model measures the engine; a large model measures the memory.
#
# ### Throughput and concurrency
#
# The same weights, read once per step, serve every stream of a batch. So throughput should rise with concurrency in
# any engine that batches, and stay flat in one that serves a single request at a time.

# %%
same = lab.measurements("output_throughput", precision=lab.precision)
plots.lines(same, "output_throughput", x="concurrency")

# %% [markdown]
# The price is paid by each user: with more streams in flight, every single one gets its tokens more slowly, or waits
# longer for the first.

# %%
plots.latency_throughput(lab.measurements(), precision=lab.precision)

# %% [markdown]
# ### Can we trust our own client?
#
# Each engine counts the tokens it makes. The client's totals and the engine's own counters must agree; if they differ
# by more than two percent, this lab does not finish. A benchmark without such a witness can be wrong by a factor and
# still look precise.

# %%
plots.witness_table(lab.measurements("completion_tokens"))

# %% [markdown]
# ### Exercise 4: goodput
#
# Throughput counts answers that nobody waited for. **Goodput** counts requests per second that met *all* limits.
# `requests` is a list of `{"ttft": seconds, "tpot": seconds}`; a failed request has `None`. A request exactly at a limit
# meets it.


# %% labs={"exercise": "goodput"}
def goodput(requests, duration_s, ttft_limit, tpot_limit):
    """Requests per second that met both limits (seconds)."""
    ### BEGIN SOLUTION
    met = 0
    for request in requests:
        answered = request["ttft"] is not None
        if answered and request["ttft"] <= ttft_limit and (request["tpot"] or 0.0) <= tpot_limit:
            met += 1
    return met / duration_s
    ### END SOLUTION


lab.check("goodput", goodput)

# %% [markdown]
# ## Part 5. What others measured on a DGX Spark
#
# These points were published by others; each names its source and its precision. They are not comparable with the
# figures above (another machine, other models), only with one another. Check each against the roofline of Part 3 before
# you believe it.

# %%
lab.record(references.spark())
plots.references(lab.measurements(source="reference"))

# %% [markdown]
# ## Part 6. From figures to a decision
#
# A use case says which metrics matter and how much. Chat wants the first word soon and a steady flow; an API wants
# tokens per second for everybody; batch work wants prefill; an edge device wants little memory and a quick start.

# %%
USE_CASES = {
    "development": {"startup_time": 3, "memory": 1, "ttft": 1},
    "interactive chat": {"ttft": 3, "tpot": 3},
    "high-throughput API": {"output_throughput": 4, "ttft": 1},
    "batch processing": {"prefill_throughput": 3, "output_throughput": 3},
    "edge device": {"memory": 4, "startup_time": 1, "decode_throughput": 2},
}
LOWER_IS_BETTER = ["startup_time", "memory", "ttft", "tpot"]

# %% [markdown]
# ### Exercise 5: rank engines for a use case
#
# `engines` maps a name to `{metric: value}`; `weights` maps a metric to its weight. For each metric an engine scores
# its value relative to the best engine: `best / value` where lower is better, `value / best` where higher is better;
# 0 when it was not measured. Its total is the weighted mean. Return `[[name, total], ...]`, the best first, equal
# totals by name.


# %% labs={"exercise": "rank"}
def rank(engines, weights, lower_is_better):
    """Engines with their weighted score (0 to 1), the best first."""
    ### BEGIN SOLUTION
    totals = dict.fromkeys(engines, 0.0)
    for metric, weight in weights.items():
        measured = {name: values[metric] for name, values in engines.items() if metric in values}
        if not measured:
            continue
        lower = metric in lower_is_better
        best = min(measured.values()) if lower else max(measured.values())
        for name, value in measured.items():
            totals[name] += weight * (best / value if lower else value / best)
    whole = sum(weights.values())
    rows = [[name, total / whole] for name, total in totals.items()]
    return sorted(rows, key=lambda row: (-row[1], row[0]))
    ### END SOLUTION


lab.check("rank", rank)

# %% [markdown]
# The matrix below is computed from this machine's measurements by your function once it passes, and by the bench's own
# until then. Change the weights above and run it again: whose choice changes, and does that worry you?

# %%
measured = lab.measurements(source="measured", precision=lab.precision)
table = bench.decision_table(measured, at_concurrency=4)
chosen = rank if lab.solved("rank") else bench.rank
matrix = {case: chosen(table, weights, LOWER_IS_BETTER) for case, weights in USE_CASES.items()}
plots.decision_matrix(matrix)

# %% [markdown]
# ## Reflection
#
# Answer in a few sentences each; an instructor reads them.

# %% [markdown] labs={"question": "small-model"}
# **1. Would the ranking hold for an 8B model on a DGX Spark?** Which of your measurements would change most, and which
# hardly at all? Use the roofline in your answer.
#
# *Your answer:*
# <!-- ### BEGIN SOLUTION -->
#
# Decode would change most. Here a step costs about a millisecond and most of it is overhead, so the engines differ by
# how lean their step is. At 8B in bf16 the Spark must read 16 GB per token, 17 tok/s at best, and every good engine
# sits close below that line: the differences shrink, and precision decides (FP8 doubles the roof, 4 bits nearly
# quadruple it). Prefill becomes bound by arithmetic on the GPU, so kernels matter more than here. Batching keeps its
# meaning, since one read of the weights still serves all streams. Start-up grows with the weights, and memory is then
# the model rather than the runtime.
# <!-- ### END SOLUTION -->

# %% [markdown] labs={"question": "one-number"}
# **2. A vendor shows "2x faster than vLLM".** Name four things you ask before you believe it.
#
# *Your answer:*
# <!-- ### BEGIN SOLUTION -->
#
# Faster at what: TTFT, TPOT, or throughput at which concurrency and which lengths? The same model in the same
# precision, and does the figure stay below the roofline? Which version and settings of vLLM (prefix cache, eager mode,
# memory fraction), and were repeats interleaved on the same machine? How many samples, with what spread, and does the
# engine's own token count agree with the client's?
# <!-- ### END SOLUTION -->

# %% [markdown]
# ## Finish
#
# `lab.finish()` writes the result file and holds it against what this lab must have measured. It raises when something
# is missing.

# %%
lab.finish()
