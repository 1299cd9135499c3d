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
# # Lab 3.3.3: vLLM, continuous batching and PagedAttention
#
# *Module 3.3, Model Deployment & Inference Engines. About 2 hours with the exercises; the measurements alone take a few
# minutes.*
#
# One user does not fill a server. Decoding one token reads all weights; decoding a token for each of sixteen users reads
# them once, too. So an engine puts many users into one step. Two inventions made that work for requests of different
# lengths: **continuous batching** decides anew before *every step* who takes part, and **PagedAttention** keeps the KV
# cache in blocks, so that nobody reserves memory for an answer that is not written yet. vLLM has both. In this lab you
# will:
#
# 1. write the block allocator and the scheduler's step;
# 2. simulate static and continuous batching with it, and hold the simulation against vLLM;
# 3. find the knee: the most requests per second that a server carries while its users are content;
# 4. turn the scheduler's knobs, and make it run out of memory on purpose;
# 5. store keys and values in half the bytes, and measure what that does to the answers.
#
# **How to work.** Run the cells in order. Cells marked *Exercise* hold a function or a class for you to write. The
# notebook runs through even when none is written. `lab.check(...)` answers at once.

# %% tags=["parameters"]
profile = "auto"  # or "cpu"
scale = "full"  # or "quick": fewer requests and repeats
out = "results"  # folder of the result file

# %% [markdown]
# `Lab` says whether vLLM can run here.

# %%
import asyncio
import json
from functools import partial
from pathlib import Path

import pandas as pd
from IPython.display import display

from labs_helpers import bench, plots
from labs_helpers.engines import vllm_container
from labs_helpers.engines.base import ModelSpec
from labs_helpers.errors import LabsError
from labs_helpers.lab import Lab
from labs_helpers.model import kv_quantization, workloads
from labs_helpers.model.spec import shipped_dir

lab = Lab("3.3.3", profile=profile, scale=scale, out=out)

# %% [markdown]
# ## Part 1. The KV cache in blocks
#
# A running request keeps a key and a value for every token, in every layer. How long its answer will be, nobody knows. The
# obvious way is to reserve room for the longest possible one, in one piece. Most of that stays empty.
#
# PagedAttention does what an operating system does with memory. The pool is cut into **blocks** of a few tokens. A
# sequence has a **block table**: its first tokens are in this block, the next ones in that. A block is taken when the one
# before it is full. Only the last block of a sequence can be partly empty.
#
# A table makes sharing possible, too. When a sequence **forks** (two answers to one prompt, the beams of a search), both
# tables name the same blocks. Only when one of them writes into a shared block, it gets its own copy first: **copy on
# write**.
#
# ### Exercise 1: the block allocator
#
# There are blocks number 0 to `blocks - 1`, each for `block_size` tokens. Sequences have names.
#
# - `allocate(sequence, tokens)`: give a new sequence the blocks for its first `tokens` tokens. Return `True`; or `False`,
#   with nothing changed, when too few are unused.
# - `append(sequence)`: make room for one more token. When the last block is full, that takes a new one. When the last block
#   has room but others hold it too, the sequence gets a new block in its place (the copy). Return `True`; or `False`, with
#   nothing changed, when a block is needed and none is unused.
# - `fork(parent, child)`: a new sequence that holds the same blocks and as many tokens. Return nothing.
# - `free(sequence)`: end it. Return how many blocks are unused again because of that.
# - `tables()`: for every sequence its block numbers, in order, as a dictionary of lists.
# - `unused()`: how many blocks nobody holds.
#
# Which unused block is taken does not matter. A block that a sequence holds never moves.


# %% labs={"exercise": "BlockAllocator"}
class BlockAllocator:
    """Blocks of a KV cache, and the sequences that hold them."""

    def __init__(self, blocks, block_size):
        self.block_size = block_size
        self.holders = [0] * blocks  # how many sequences hold each block
        self.blocks = {}  # sequence -> its block numbers
        self.tokens = {}  # sequence -> its number of tokens

    def allocate(self, sequence, tokens):
        """Blocks for the first tokens of a new sequence; False when there are too few."""
        ### BEGIN SOLUTION
        needed = -(-tokens // self.block_size)
        if needed > self.unused():
            return False
        self.blocks[sequence] = [self._take() for _ in range(needed)]
        self.tokens[sequence] = tokens
        return True
        ### END SOLUTION

    def append(self, sequence):
        """Room for one more token; False when there is none."""
        ### BEGIN SOLUTION
        held = self.blocks[sequence]
        full = self.tokens[sequence] % self.block_size == 0
        shared = not full and self.holders[held[-1]] > 1
        if full or shared:
            if not self.unused():
                return False
            if shared:
                self.holders[held.pop()] -= 1
            held.append(self._take())
        self.tokens[sequence] += 1
        return True
        ### END SOLUTION

    def fork(self, parent, child):
        """A new sequence that shares all blocks of another one."""
        ### BEGIN SOLUTION
        self.blocks[child] = list(self.blocks[parent])
        self.tokens[child] = self.tokens[parent]
        for block in self.blocks[child]:
            self.holders[block] += 1
        ### END SOLUTION

    def free(self, sequence):
        """End a sequence; returns how many blocks are unused again."""
        ### BEGIN SOLUTION
        before = self.unused()
        for block in self.blocks.pop(sequence):
            self.holders[block] -= 1
        del self.tokens[sequence]
        return self.unused() - before
        ### END SOLUTION

    def tables(self):
        """The block numbers of every sequence."""
        ### BEGIN SOLUTION
        return {sequence: list(held) for sequence, held in self.blocks.items()}
        ### END SOLUTION

    def unused(self):
        """How many blocks nobody holds."""
        ### BEGIN SOLUTION
        return self.holders.count(0)
        ### END SOLUTION

    def _take(self):
        """An unused block, which is held once from now on."""
        ### BEGIN SOLUTION
        block = self.holders.index(0)
        self.holders[block] = 1
        return block
        ### END SOLUTION


lab.check("BlockAllocator", BlockAllocator)

# %% [markdown]
# ### What blocks save
#
# The **trace** of this lab: chats as they are, most answers short, one in five long. It comes from a fixed seed, and so does
# every load below. How much of the reserved memory stays empty, for blocks of different sizes, and for one piece of 2,560
# tokens per request?

# %%
CONTEXT = 2560
trace = workloads.mixed_lengths(lab.pick(quick=64, full=96), seed=0)
lengths = [(len(prompt), answer) for prompt, answer in trace]
totals = [prompt + answer for prompt, answer in lengths]
pd.DataFrame(
    {"empty": {f"blocks of {size}": f"{bench.unused_share(totals, size):.0%}" for size in (16, 32, 64, 128)}}
    | {"empty ": {"one piece of 2,560": f"{bench.unused_share(totals, CONTEXT):.0%}"}}
).fillna("").agg("".join, axis=1).to_frame("of the reserved memory, empty")

# %% [markdown]
# **What just happened?** In one piece, nearly everything is reserved for tokens that never come. Blocks waste half a block
# per sequence, on average: the smaller the block, the less. Why not blocks of one token, then? Each block is an entry of a
# table that every step reads, and a kernel likes to read pieces. vLLM takes 16 on a GPU and 128 on a CPU; here, where
# sequences are short, we will take 64.
#
# ### Exercise 2: bytes per token
#
# How large is a token's part of the KV cache? `config` is a model's `config.json` as a dictionary. Each layer stores one key
# and one value per **KV head**. Without `num_key_value_heads` in it (or with `None`), every one of the
# `num_attention_heads` has its own. Without `head_dim` (or with `None`), the `hidden_size` is divided among the
# attention heads. `bytes_per_value` is 2 for bf16, 1 for fp8.


# %% labs={"exercise": "kv_bytes"}
def kv_bytes(config, bytes_per_value):
    """Bytes of KV cache per token."""
    ### BEGIN SOLUTION
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return 2 * config["num_hidden_layers"] * kv_heads * head_dim * bytes_per_value
    ### END SOLUTION


lab.check("kv_bytes", kv_bytes)

# %% [markdown]
# For our model, and for three that people serve. In the last column: how many users with 4,096 tokens each fit into 40 GB?

# %%
per_token = kv_bytes if lab.solved("kv_bytes") else bench.kv_bytes_per_token
MODELS = {
    "course model": json.loads((shipped_dir() / "config.json").read_text()),
    "Llama-2-7B": {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32},
    "Llama-3.1-8B": {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8},
    "Qwen3-8B": {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
}
pd.DataFrame(
    {
        name: {
            "bytes per token, bf16": f"{per_token(config, 2):,}",
            "fp8": f"{per_token(config, 1):,}",
            "users in 40 GB, bf16": int(40e9 // (4096 * per_token(config, 2))),
        }
        for name, config in MODELS.items()
    }
).T

# %% [markdown]
# **What just happened?** A cache of 4,096 tokens of Llama-2-7B takes 2 GB, its weights 13. Grouped-query attention (8 KV
# heads for 32 query heads) made it four times smaller, from one model generation to the next. Nothing else on this page
# saves as much.
#
# ## Part 2. The scheduler
#
# **Static batching** takes a group of requests and runs it to its end. Short answers are ready early, and their seats stay
# empty until the longest is done. **Continuous batching** asks before every step: who is here, who is new, who has
# finished? A seat is given away in the same step in which it becomes free.
#
# The scheduler has three limits. The **budget**: tokens of one step, since a step with many tokens takes long. The
# **seats** (`max_num_seqs`): sequences in one step. And the **blocks** of the pool. What happens when a running sequence
# needs a block and none is left? Somebody must go: he loses all his blocks and starts again later. That is a
# **preemption**.
#
# ### Exercise 3: one step
#
# A request is `{"id", "tokens", "computed"}`: it has so many tokens, prompt and answer so far, and for `computed` of them the
# KV cache is there. It holds the blocks for `computed` tokens. What it lacks, `tokens - computed`, is one token when it is
# decoding, and many when its prompt is new.
#
# 1. **The running ones first**, in their order. Each gets what it lacks, or what is left of the `budget`. When the budget
#    is used up, the others just stay where they are. When blocks are missing, the *last* of the running list is preempted
#    (its blocks are free at once), and again, until there are enough. If that hits the request itself, the walk ends.
# 2. **Then the waiting ones**, in their order, and only when nobody was preempted in this step. Each gets what it lacks,
#    or what is left of the budget. Stop at the first one for which no budget, no seat or too few blocks are left: who
#    comes later must not overtake it.
#
# Return a dictionary: `"scheduled"` ({id: tokens}), `"preempted"` (ids, in the order in which they went), `"running"` and
# `"waiting"` (ids, as the two lists are after the step). Who was preempted stands at the front of `"waiting"`, the one that
# came first before the others, as they stood in the running list. `held_blocks` and `new_blocks` are given.


# %% labs={"exercise": "schedule"}
def held_blocks(request, block_size):
    """Blocks that a request holds."""
    return -(-request["computed"] // block_size)


def new_blocks(request, share, block_size):
    """Blocks that it needs for `share` more tokens."""
    return -(-(request["computed"] + share) // block_size) - held_blocks(request, block_size)


def schedule(running, waiting, free_blocks, block_size, budget, max_seqs):
    """What the next step does."""
    ### BEGIN SOLUTION
    running, waiting = list(running), list(waiting)
    scheduled, preempted = {}, []
    at = 0
    while at < len(running) and budget > 0:
        request = running[at]
        share = min(request["tokens"] - request["computed"], budget)
        needed = new_blocks(request, share, block_size)
        while needed > free_blocks and len(running) > at:
            victim = running.pop()
            free_blocks += held_blocks(victim, block_size)
            preempted.append(victim)
        if len(running) == at:
            break
        free_blocks -= needed
        budget -= share
        scheduled[request["id"]] = share
        at += 1
    while waiting and not preempted and budget > 0 and len(running) < max_seqs:
        request = waiting[0]
        share = min(request["tokens"] - request["computed"], budget)
        needed = new_blocks(request, share, block_size)
        if needed > free_blocks:
            break
        free_blocks -= needed
        budget -= share
        scheduled[request["id"]] = share
        running.append(waiting.pop(0))
    return {
        "scheduled": scheduled,
        "preempted": [request["id"] for request in preempted],
        "running": [request["id"] for request in running],
        "waiting": [request["id"] for request in [*reversed(preempted), *waiting]],
    }
    ### END SOLUTION


lab.check("schedule", schedule)

# %% [markdown]
# ### A simulation
#
# `simulate_batching` calls your function step after step for the whole trace, with 16 streams, and counts. *Static*: the
# next 16 are sent when all before them have ended. *Continuous*: the next one is sent when one has ended.

# %%
step = schedule if lab.solved("schedule") else bench.schedule
STREAMS = 16
simulated = {
    name: bench.simulate_batching(lengths, STREAMS, waves=name == "static", step=step)
    for name in ("static", "continuous")
}
pd.DataFrame(
    {
        name: {"steps": found.steps, "requests in a step, on average": sum(found.running) / found.steps}
        for name, found in simulated.items()
    }
).T.round(1)

# %% [markdown]
# **What just happened?** The same tokens in far fewer steps, because each step carries more. But a full step also takes
# longer than an empty one, so the ratio of the steps is not yet the ratio of the times. How long a step takes we will
# learn from vLLM: it counts its steps and the tokens in them.
#
# ## Part 3. What we will measure
#
# Three servers, since some knobs can only be set at the start. A knob that a load does not reach changes nothing; so one
# server can serve several experiments. All weights are bf16; prefix caching is off, since it is not the subject.

# %%
COMMON = {"block_size": 64, "prefix_caching": False, "max_model_len": CONTEXT}
ROOMY = COMMON | {
    "kv_cache_bytes": 96 * 2**20,  # room for everything
    "max_num_seqs": 64,  # as many seats as we will have streams
    "max_num_batched_tokens": 4096,  # a whole prompt in one step...
    "chunked_prefill": False,  # ...and never less
}
TIGHT = COMMON | {
    "kv_cache_bytes": 16 * 2**20,  # some 3,000 tokens
    "max_num_seqs": 24,
    "max_num_batched_tokens": 256,
    "chunked_prefill": True,
}
FP8 = TIGHT | {"kv_cache_dtype": "fp8", "max_num_seqs": 64}

# %% [markdown]
# ### Load against latency
#
# Closed loops with 1 to 64 streams show what batching costs one user (TPOT) and what it gives all (tokens per second).
# `work` makes requests like those of the trace, never the same twice.


# %%
def work(n, seed):
    """Requests with the lengths of the trace's kind."""
    return [bench.Request(tuple(prompt), max_tokens=answer) for prompt, answer in workloads.mixed_lengths(n, seed=seed)]


async def measure_concurrency(server):
    """Closed loops with 1 to 64 streams; returns the sweep."""
    taken = await bench.sweep(
        server, work, concurrency=(1, 4, 16, 64), requests_per_stream=lab.pick(3, 4), workload="chats"
    )
    lab.record(taken.measurements("output_throughput", "request_throughput", "ttft", "tpot", "completion_tokens"))
    one = taken.closed[0]
    for run in taken.closed[1:]:
        gain = run.output_tokens_per_s / one.output_tokens_per_s
        lab.record(run.measurement("throughput_gain", gain, n=len(run.good)))
    return taken


# %% [markdown]
# ### The knee
#
# Real users do not wait for each other: they arrive. In an **open loop** requests come at a rate, at random (Poisson), and
# the clock of each starts when it *should* have been sent. As long as the rate is low, all are served in time. Above what
# the server can do, the queue grows without end, and soon *nobody* is served in time. In between lies the **knee**: the
# highest **goodput** (requests per second that meet all limits) at which the server still serves those who come.
#
# The limits are ours to state. Here: first token within 10 times what one user alone waits for it, then 4 times the time
# per token. And a rate counts as served only when 9 of 10 requests meet both. `sweep` probes a few rates, and halves the
# interval each time: upwards after a rate that is served, downwards after one that is not.


# %%
async def measure_knee(server, closed):
    """Open loops at a few rates around the knee; returns the sweep."""
    alone = {m.metric: m.value for m in closed.closed[0].measurements("ttft", "tpot")}
    limits = bench.Limits(ttft_ms=round(10 * alone["ttft"]), tpot_ms=round(4 * alone["tpot"], 1))
    ceiling = 1.5 * max(m.value for m in closed.measurements("request_throughput"))
    taken = await bench.sweep(
        server,
        work,
        limits=limits,
        probes=lab.pick(3, 5),
        probe_s=lab.pick(2.0, 6.0),
        ceiling=ceiling,
        warmup=False,
        workload="chats, arriving",
    )
    lab.record(taken.measurements("goodput", "request_throughput", "ttft", "tpot", "completion_tokens"))
    return taken


# %% [markdown]
# ### Exercise 4: read the knee
#
# `sweep` is a list of probes, in any order: `[rate, seconds, requests]`, for the offered rate, the time in which the requests
# arrived, and the requests themselves, each `[ttft, tpot]` in ms. A request that failed is `[None, None]` and meets
# nothing; an answer of a single event has `None` as TPOT, and meets that limit. A figure exactly at its limit meets it.
#
# Only a probe in which at least `share` of the requests meet both limits counts. Of those, return `[rate, goodput]` of the
# one with the highest goodput (requests that meet both limits, per second of arrivals); of equally good ones, that with the
# lowest rate. Return `None` when no probe counts.


# %% labs={"exercise": "knee"}
def knee(sweep, ttft_ms, tpot_ms, share):
    """The offered rate with the highest goodput among those that were served, and that goodput."""

    ### BEGIN SOLUTION
    found = []
    for rate, seconds, requests in sweep:
        answered = [(ttft, tpot or 0) for ttft, tpot in requests if ttft is not None]
        met = sum(ttft <= ttft_ms and tpot <= tpot_ms for ttft, tpot in answered)
        if met >= share * len(requests):
            found.append([rate, met / seconds])
    return min(found, key=lambda probe: (-probe[1], probe[0]), default=None)
    ### END SOLUTION


lab.check("knee", knee)

# %% [markdown]
# ### Static against continuous
#
# The trace, in waves of 16 and in free flow with 16 streams, in turns. Both go to the same server with the same settings:
# what differs is who waits for whom. vLLM's own count of steps is read along.

# %%
batching = {}


async def measure_batching(server):
    """The trace in waves and in free flow, in turns."""
    offered = [bench.Request(tuple(prompt), max_tokens=answer) for prompt, answer in trace]

    async def take(name):
        batching[name] = await bench.run(
            server, offered, concurrency=STREAMS, waves=name == "static", warmup=False, progress=False,
            workload="mixed lengths",
        )  # fmt: skip
        return batching[name]

    gain = await bench.compare({name: partial(take, name) for name in ("static", "continuous")}, repeats=3)
    lab.record(gain.measurement())
    for run in batching.values():
        lab.record(run.measurements("output_throughput", "e2e", "completion_tokens"))
        lab.record(run.measurement("engine_steps", run.engine_count(bench.STEPS), n=1))


# %% [markdown]
# And both once more, watched: vLLM's own page of metrics says how many requests run and wait, and how much of the pool is in
# use. Looking costs the server time, so these two runs are not used for figures.


# %%
async def watch_batching(server):
    """What vLLM says of itself in waves, then in free flow."""
    offered = work(lab.pick(32, 48), "watched")
    async with bench.watch(server) as live:
        for waves in (True, False):
            await bench.run(server, offered, concurrency=STREAMS, waves=waves, warmup=False, workload="watched")
    return live


# %% [markdown]
# ### A long prompt among short chats
#
# Four chats are being answered when a prompt of 2,000 tokens arrives, and then another. Its prefill is one long step, and
# all others wait for it. **Chunked prefill** cuts it into pieces of the budget; each piece shares its step with the
# decoding chats. Look at the *longest gap* between two tokens of a chat, and at what the long prompt pays for it.

# %%
stalls = {}


async def measure_stalls(server, name):
    """Chats on four streams; on the fifth a short request, then long prompts."""
    chats = [bench.Request(tuple(p), max_tokens=lab.pick(120, 160)) for p in workloads.distinct(4, 48, seed=name)]
    long = [bench.Request(tuple(p), max_tokens=2) for p in workloads.distinct(2, 2000, seed="long " + name)]
    short = [bench.Request(tuple(p), max_tokens=12) for p in workloads.distinct(1, 48, seed="short " + name)]
    run = await bench.run(
        server, [*short, *chats, *long], concurrency=5, warmup=False, progress=False, workload="chats and long prompts"
    )
    lab.record(run.measurements("completion_tokens"))
    chatting = run.where(lambda sample: sample.completion_tokens > 100, workload=f"chats beside long prompts, {name}")
    reading = run.where(lambda sample: sample.prompt_tokens == 2000, workload=f"long prompts, {name}")
    lab.record(chatting.measurements("itl", "itl_p99"))
    lab.record(reading.measurements("ttft"))
    stalls[name] = {
        "chats: median gap (ms)": pd.Series(chatting.values("itl")).median(),
        "chats: longest gap (ms)": chatting.values("itl").max(),
        "long prompts: TTFT (ms)": reading.values("ttft").mean(),
    }


# %% [markdown]
# ### Seats
#
# 48 short requests at once, on a server with 64 seats and on one with 24. On which of them is the first token earlier, and on
# which the next ones?


# %%
async def measure_seats(server):
    """More requests at once than the smaller server has seats."""
    offered = [bench.Request(tuple(p), max_tokens=32) for p in workloads.distinct(48, 48, seed="seats")]
    seats = server.options["max_num_seqs"]
    run = await bench.run(server, offered, concurrency=48, warmup=False, workload=f"48 at once, {seats} seats")
    lab.record(run.measurements("ttft", "tpot", "output_throughput", "completion_tokens"))


# %% [markdown]
# ### How many fit
#
# Sequences that take exactly four blocks from their first step to their last: 200 tokens of prompt, 56 of answer. How many
# of them can run together? One block the engine keeps for itself. The prediction comes first.


# %%
async def measure_capacity(server):
    """Predict how many sequences fit, then look how many run."""
    pool = await bench.kv_pool(server)
    kind = "fp8" if pool.dtype.startswith("fp8") else "bf16"
    expected = per_token(MODELS["course model"], 1 if kind == "fp8" else 2)
    predicted = min((pool.blocks - 1) // 4, server.options["max_num_seqs"])
    offered = [
        bench.Request(tuple(p), max_tokens=56) for p in workloads.distinct(2 * predicted, 200, seed="fit" + kind)
    ]
    async with bench.watch(server, every_s=0.05) as live:
        run = await bench.run(
            server, offered, concurrency=2 * predicted, warmup=False, workload=f"sequences of 4 blocks, {kind} KV"
        )
    lab.record(run.measurements("completion_tokens"))
    lab.record(
        run.measurement("kv_bytes_per_token", expected, n=1).model_copy(update={"witness": pool.bytes_per_token})
    )
    lab.record(run.measurement("kv_capacity", pool.tokens, n=1))
    lab.record(run.measurement("running_requests", live.most_running, n=len(live.moments)))
    fits[kind] = {
        "blocks, predicted": int(pool.bytes // (expected * pool.block_size)),
        "blocks, read": pool.blocks,
        "sequences, predicted": predicted,
        "sequences, seen": int(live.most_running),
    }


fits = {}

# %% [markdown]
# ### Out of memory, on purpose
#
# 24 requests at once, each with a short prompt and a long answer. At the start all fit; while they grow, the blocks run
# out. The simulation knows the pool, and says how often somebody will have to go.

# %%
LONG = [(40, lab.pick(180, 280))] * 24
pressure = {}


async def measure_preemption(server):
    """Long answers in a small pool, watched."""
    pool = await bench.kv_pool(server)
    kind = "fp8" if pool.dtype.startswith("fp8") else "bf16"
    offered = [bench.Request(tuple(p), max_tokens=LONG[0][1]) for p in workloads.distinct(24, 40, seed="grow" + kind)]
    async with bench.watch(server) as live:
        run = await bench.run(
            server, offered, concurrency=24, warmup=False,
            workload="long answers, small pool" + ("" if kind == "bf16" else f", {kind} KV"),
        )  # fmt: skip
    lab.record(run.measurements("output_throughput", "tpot", "completion_tokens"))
    lab.record(run.measurement("preemptions", run.engine_count(bench.PREEMPTIONS), n=1))
    lab.record(run.measurement("kv_cache_usage", live.highest_usage, n=len(live.moments)))
    guess = bench.simulate_batching(
        LONG, 24, step=step, budget=256, max_seqs=24, blocks=pool.blocks - 1, block_size=pool.block_size
    )
    pressure[kind] = {"run": run, "live": live, "simulated": guess}


# %% [markdown]
# ### What half the bytes do to the answers
#
# The server reads held-out texts and says for every token how likely it was (`prompt_logprobs`), and which it would have
# taken. Two figures come of it: the **loss**, and how often an engine with fp8 keys and values would take the same token
# as one with bf16. Comparing whole answers would say less: after the first difference they are two different texts.

# %%
TEXTS = workloads.held_out_texts(lab.pick(quick=2, full=6), 600)
scored = {}


async def measure_loss(server, run, kind):
    """Loss on the texts, and agreement with what was scored before under 'bf16'."""
    scored[kind] = [await bench.score_text(server, text) for text in TEXTS]
    losses = [loss for one in scored[kind] for loss in one.losses]
    pairs = [p for a, b in zip(scored["bf16"], scored[kind]) for p in zip(a.choices, b.choices)]
    name = run.where(lambda sample: True, workload=f"held-out text, {kind} KV")
    lab.record(name.measurement("loss", sum(losses) / len(losses), n=len(losses)))
    lab.record(name.measurement("token_agreement", sum(a == b for a, b in pairs) / len(pairs), n=len(pairs)))


# %% [markdown]
# ### When the client is the limit
#
# Every figure here is taken by a client, and a client can be too slow itself. Then it measures itself. The bench watches for
# that: when requests leave late by more than a tenth of the TTFT, or the client's thread is busy all the time, all figures
# of the run are marked **client-bound**. To see the mark, we make the client slow on purpose: a second task in the same
# thread computes for some 30 ms, again and again, like a program that evaluates answers while others still arrive.


# %%
async def compute_all_the_time():
    """Work that leaves the event loop little time for the streams."""
    while True:
        sum(range(1_500_000))
        await asyncio.sleep(0)


async def measure_client_bound(server):
    """A light load, from a client that has time for it, then from one that has not."""
    offered = [bench.Request(tuple(p), max_tokens=8) for p in workloads.distinct(10, 400, seed="client")]
    for name in ("free client", "busy client"):
        chore = asyncio.create_task(compute_all_the_time()) if name == "busy client" else None
        try:
            run = await bench.run(server, offered, request_rate=5.0, warmup=False, workload=name)
        finally:
            if chore:
                chore.cancel()
        lab.record(run.measurements("ttft", "tpot", "completion_tokens"))
        seconds, count = (run.engine_count(f"vllm:time_to_first_token_seconds_{part}") for part in ("sum", "count"))
        lateness[name] = {
            "TTFT seen by the client (ms)": run.values("ttft").mean(),
            "TTFT seen by the engine (ms)": 1e3 * seconds / count,
            "client sent late by (ms), at most": run.saturation.lag_ms,
            "client's share of a core": run.saturation.cpu_share,
        }


lateness = {}


# %% [markdown]
# ## Part 4. Run it
#
# The first server has room for everything.

# %%
with lab.engine("vllm", precision="bf16", **ROOMY) as server:
    closed = await measure_concurrency(server)
    arriving = await measure_knee(server, closed)
    await measure_batching(server)
    watched = await watch_batching(server)
    await measure_stalls(server, "whole")
    await measure_seats(server)
    await measure_client_bound(server)

# %% [markdown]
# The second has little of everything: few seats, a small budget, a small pool.

# %%
with lab.engine("vllm", precision="bf16", **TIGHT) as server:
    await measure_stalls(server, "chunks of 256")
    await measure_seats(server)
    await measure_capacity(server)
    await measure_preemption(server)
    await measure_loss(server, pressure["bf16"]["run"], "bf16")

# %% [markdown]
# The third has the same pool, and stores keys and values in fp8. (On a CPU this needs AVX-512 or AMX; where it cannot start,
# the reason is printed, and the rest of the lab goes on.)

# %%
try:
    with lab.engine("vllm", precision="bf16", **FP8) as server:
        await measure_capacity(server)
        await measure_preemption(server)
        await measure_loss(server, pressure["fp8"]["run"], "fp8")
except LabsError as error:
    print(error)

# %% [markdown]
# ## Part 5. Results
#
# ### What batching costs one, and gives all
#
# From left to right: more streams. To the right is good for all, up is bad for each.

# %%
chats = [m for m in lab.measurements() if m.load.workload == "chats"]
plots.latency_throughput(chats, "tpot")

# %% [markdown]
# The gain as a number, and the price of it.

# %%
pd.DataFrame(
    {
        m.load.concurrency: {"output tok/s": m.value, "TPOT (ms)": tpot.value}
        for m, tpot in zip(
            [m for m in chats if m.metric == "output_throughput"], [m for m in chats if m.metric == "tpot"]
        )
    }
).T.rename_axis("streams").assign(gain=lambda table: table["output tok/s"] / table["output tok/s"].iloc[0]).round(1)

# %% [markdown]
# **What just happened?** A step for sixteen takes about twice as long as a step for one, not sixteen times: weights are read
# once, and a good part of a step is overhead that does not depend on the number of users. Further to the right each user
# pays more for less: arithmetic is the limit now, not reading. On a GPU the same curve has larger numbers, and the turn
# comes at hundreds of streams.
#
# ### The knee
#
# Offered rate to the right, requests in time upwards. On the dotted line everybody is served in time. (A red circle, if there
# is one, marks a probe in which the client itself was late now and then; see *The busy client* below.)

# %%
limits = arriving.open[0].limits
stated = f"TTFT at most {limits.ttft_ms:g} ms, TPOT at most {limits.tpot_ms:g} ms"
if lab.solved("knee"):
    found = knee([list(point) for point in arriving.points()], limits.ttft_ms, limits.tpot_ms, 0.9)
else:
    found = arriving.knee and [arriving.knee.load.request_rate, bench.goodput(arriving.knee)]
print(f"{stated}; the knee, [offered, in time] per second: {found and [round(x, 1) for x in found]}")
plots.knee(lab.measurements("goodput"), stated)

# %% [markdown]
# **What just happened?** Up to the knee, goodput follows the offered rate. Beyond it, every request that comes too many
# makes others late. So the last few percent of a server's throughput are worthless for people who wait: plan below the
# knee, and refuse what is too much instead of queueing it. A closed loop cannot show this, because its users wait politely.
# A probe is short here, and its arrivals are random: two sweeps will not find the very same rate. (Goodput is
# counted over the time of the arrivals; the answers that end after the last arrival would only show how short the probe is.)
#
# ### Static against continuous
#
# First vLLM's own view: waves, then free flow.

# %%
plots.live(watched.moments, watched.label, "The same requests in waves, then in free flow")

# %% [markdown]
# In waves, the running requests fall away one by one, and the seats stay empty until the slowest has ended. In free flow
# they are given away at once, until no one is left to give them to.
#
# Now the simulation. A step costs something for itself and something for each token in it; both follow from the sweep above,
# from vLLM's count of steps and of tokens in them. The trace took no part in that.

# %%
cost = bench.StepCost.fit(closed.closed)
print(f"a step costs {cost.per_step_s * 1e3:.1f} ms and {cost.per_token_s * 1e3:.2f} ms for each token in it")
rows = {}
for name, run in batching.items():
    found = bench.simulate_batching(lengths, STREAMS, cost, waves=name == "static", step=step)
    steps = [m.value for m in lab.measurements("engine_steps") if (m.load.arrival == "waves") is (name == "static")]
    rows[name] = {
        "steps, simulated": found.steps, "steps, counted": int(steps[0]),
        "seconds, simulated": found.seconds, "seconds, measured": run.duration_s,
    }  # fmt: skip
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# And the ratio of the two, which is what continuous batching is worth for this trace.

# %%
(gain,) = [m for m in lab.measurements("speedup") if m.load.workload == "mixed lengths"]
predicted = rows["static"]["seconds, simulated"] / rows["continuous"]["seconds, simulated"]
error = abs(predicted / gain.value - 1)
lab.record(gain.model_copy(update={"metric": "prediction_error", "unit": "ratio", "value": error, "spread": None}))
print(
    f"continuous is {gain.value:.2f} times as fast [{gain.spread.low:.2f}, {gain.spread.high:.2f}], n={gain.n} pairs; "
    f"simulated {predicted:.2f}, {error:.0%} off"
)

# %% [markdown]
# **What just happened?** No kernel is faster, no token was saved: only the empty seats are gone. The ratio belongs to the
# trace. With answers of equal length it would be 1; the more the lengths differ, the more a wave waits for its slowest.
# (And the longer the trace, the higher: its end is a wave even in free flow.) A
# simulation of a page gets the ratio nearly right, and steps exactly or nearly so: to plan for *your* traffic, feed it
# your lengths.
#
# ### The knobs
#
# The long prompt in one step, and in chunks.

# %%
pd.DataFrame(stalls).T.round(1)

# %% [markdown]
# **What just happened?** In one step, everybody stood still for the whole prefill. In chunks of 256 tokens, the chats went
# on, a token per chunk. What do the long prompts pay? Eight steps instead of one, each with a cost of its own, and shared
# with the chats: here that is little beside the prefill itself. `--max-num-batched-tokens` is this trade: small for people
# who watch text appear, large for batch jobs that only count throughput.
#
# Seats:

# %%
seats = [m for m in lab.measurements() if "seats" in m.load.workload]
pd.DataFrame(
    {m.load.workload: {f"{n.metric} ({n.unit})": round(n.value, 1) for n in seats if n.load == m.load} for m in seats}
).T[["ttft (ms)", "tpot (ms)", "output_throughput (tok/s)"]]

# %% [markdown]
# **What just happened?** With 24 seats, half of the requests wait in the queue, and you see that in TTFT; those that sit are
# served faster, and you see that in TPOT. The same work, another order. A seat limit protects the ones inside, and it
# protects the pool: whoever is not let in cannot be preempted.
#
# ### The small pool
#
# How many fit, predicted and seen.

# %%
pd.DataFrame(fits).T

# %% [markdown]
# And what happens when they grow. Where all blocks are in use, the running requests fall and the waiting ones rise: those
# were preempted. (vLLM counts a preemption when the request runs again, so the red marks come later.)

# %%
live = pressure["bf16"]["live"]
plots.live(live.moments, live.label, "Long answers in a small pool, bf16 KV")

# %% [markdown]
# The same load with fp8 keys and values: twice the blocks in the same bytes.

# %%
if "fp8" in pressure:
    live = pressure["fp8"]["live"]
    display(plots.live(live.moments, live.label, "The same with fp8 KV"))
pd.DataFrame(
    {
        kind: {
            "preemptions, simulated": found["simulated"].preemptions,
            "preemptions, counted": int(found["run"].engine_count(bench.PREEMPTIONS)),
            "blocks in use, at most": f"{found['live'].highest_usage:.0%}",
            "output tok/s": round(found["run"].output_tokens_per_s),
        }
        for kind, found in pressure.items()
    }
).T

# %% [markdown]
# **What just happened?** vLLM does not reserve: it lets in whoever fits *now*, and takes the risk. Mostly that is right,
# because answers end. When it is not, the last one in loses his cache, and his tokens are computed again later: work done
# twice, and a pause in the middle of his answer. A counter that rises (`vllm:num_preemptions_total`) means: fewer seats, a
# larger pool, or smaller tokens.
#
# ### The price of fp8
#
# Half the bytes, so twice the tokens. What did it cost?

# %%
pd.DataFrame(
    {
        kind.split(", ")[1]: {
            m.metric: round(m.value, 4)
            for m in lab.measurements()
            if m.load.workload == kind and m.metric in ("loss", "token_agreement")
        }
        for kind in dict.fromkeys(m.load.workload for m in lab.measurements("loss"))
    }
).T

# %% [markdown]
# **What just happened?** The loss moves in the third digit, so the model is as good as before, on average. Yet some tokens are
# chosen otherwise: wherever two candidates were nearly equal, a small rounding decides. An answer with fp8 KV is *another*
# answer of the same quality, not the same answer. Whoever needs the same answer (a test, a cache of answers) must know.
#
# ### Rounding keys and values
#
# fp8 has its own exponent per value and needs no scale. **INT8** has 256 equal steps, so it needs to know how long they are:
# a **scale**, shared by many values. Which values share one? That depends on where the large ones are. Here are the real
# keys and values of our model, for one text: how much larger is the largest channel of a head than its average channel, and
# the largest token than the average token? (Means over layers and heads.)

# %%
SHORT = [text[: lab.pick(200, 400)] for text in TEXTS[:2]]
((keys, values),) = kv_quantization.keys_and_values(SHORT[:1])  # each [layers, heads, tokens, channels]


def stands_out(tensor, axis):
    """Largest magnitude along the axis, over the average one."""
    sizes = tensor.abs().amax(dim=axis)
    return float((sizes.amax(-1) / sizes.mean(-1)).mean())


pd.DataFrame(
    {
        name: {"largest / average channel": stands_out(tensor, -2), "largest / average token": stands_out(tensor, -1)}
        for name, tensor in (("keys", keys), ("values", values))
    }
).round(2)

# %% [markdown]
# Now rounded: with one scale for the whole tensor, one per token, or one per channel (over all tokens).

# %%
found = kv_quantization.effects(SHORT)
pd.DataFrame(
    {
        effect.scheme: {
            "bytes per value": kv_quantization.bytes_per_value(effect.scheme, 64),
            "error of keys": f"{effect.key_error:.2%}",
            "error of values": f"{effect.value_error:.2%}",
            "perplexity": round(effect.perplexity, 3),
            "same token": f"{effect.agreement:.1%}",
        }
        for effect in found
    }
).T

# %% [markdown]
# **What just happened?** The scale makes the error. With one scale for a whole tensor, its largest value decides how coarse
# all others become. Keys come out better with a scale per channel than per token: some of their channels are always
# larger than others, as the table above shows. Values care less. But a new token cannot change the scale of a channel without rounding all
# earlier ones again; a scale per token is known when the token is written, and so engines prefer it. INT8 with scales is
# nearer to the original than fp8 at nearly the same size: fp8 spends half of its bits on a range that keys and values do
# not need. The perplexity hardly sees any of this; look at the tokens instead. And 4 bits show where it ends.
#
# Does vLLM have INT8? It has a mode of that name, `int8_per_token_head`: a scale per token and head, as above. On a CPU,
# version 0.32.0 accepts it and has no kernel for it. The course has checked what comes out, and refuses:

# %%
try:
    server.engine.launch(server.model, 8000, kv_cache_dtype="int8_per_token_head")
except LabsError as error:
    print(error)

# %% [markdown]
# An option that is accepted is not an option that works: answers were wrong, and under a larger load the engine died. The
# check costs one text and a minute: loss and agreement, as above, before you trust a new mode of an engine.
#
# ### The busy client
#
# The same requests, at the same times, to the same server. What did the engine see, and what did the client?

# %%
pd.DataFrame(lateness).round(2)

# %% [markdown]
# The engine was as fast as before; what grew is the client's own delay. Without the mark, one would blame the server. The
# mark stands in the result file, and in every figure that shows the run. (Where client and server share two cores, it may
# also stand at runs whose client did nothing wrong but wait for a core: then their latencies are upper bounds.)

# %%
light = [m for m in lab.measurements() if m.load.workload in lateness]
plots.bars(light, "ttft", title="The same load, two clients")

# %% [markdown]
# ### Can we trust the count?
#
# Tokens as the answers report them to the client, and as the engine counted them.

# %%
plots.witness_table([m for m in lab.measurements("completion_tokens") if m.witness])

# %% [markdown]
# ## Part 6. On a DGX Spark
#
# There vLLM runs in a container, on an 8B model. This is the whole command. Nothing is started here.

# %%
qwen = ModelSpec(name="qwen3-8b", location="Qwen/Qwen3-8B", precision="bf16")
for graphs in (True, False):
    spec = vllm_container.container(
        qwen, huggingface=Path("$HOME/.cache/huggingface"), cuda_graphs=graphs, kv_cache_dtype="fp8", max_num_seqs=64
    )
    print(spec.command_line(host_port=8000), "\n")

# %% [markdown]
# What the flags are for, and what is often said of them:
#
# - `--gpu-memory-utilization 0.8`: on a Spark, CPU and GPU share one memory. The fraction is of *all* of it. Above 0.9
#   the machine may freeze.
# - `--enforce-eager` (the second command) is said to be required on ARM64. It is not. It switches CUDA graphs off: then the
#   CPU launches every kernel of every step by itself, and small steps wait for it. It is a baseline for an
#   experiment, and a way to find out whether graphs are the cause of a fault. Measure both: `cuda_graphs=True` and
#   `False`, at 1 and at 16 streams, with `bench.sweep` as above. Where do you expect the larger difference?
# - `--ipc=host`: the engine's processes hand tensors to each other in shared memory, and Docker's 64 MB are not enough. It
#   has nothing to do with data loaders.
# - `vllm serve MODEL` is the current form of `python -m vllm.entrypoints.openai.api_server --model MODEL`.
# - `pip install vllm` inside NVIDIA's PyTorch image replaces the PyTorch that was built for this GPU. Use a serving image.
#
# ## Reflection
#
# Answer in a few sentences each; an instructor reads them.

# %% [markdown] labs={"question": "seats"}
# **1. You run a chat service on one server.** Its preemption counter rises every evening. Name three knobs that would stop
# that, and what each of them costs your users.
#
# *Your answer:*
# <!-- ### BEGIN SOLUTION -->
#
# Fewer seats (`--max-num-seqs`): running requests keep their blocks, but new ones wait longer for their first token, and
# throughput falls where the seats were needed. fp8 KV: twice the tokens in the same pool; answers differ slightly, and
# that must be checked on our own text. A shorter maximum length or output limit: nobody can grow beyond it, but long
# answers are cut. (More memory for the pool, if there is any, costs nothing but the memory; refusing requests above the
# knee costs those who are refused, and nobody else.)
# <!-- ### END SOLUTION -->

# %% [markdown] labs={"question": "chunks"}
# **2. A colleague sets the token budget to 64** "so that nobody ever stalls". What will happen to throughput, and to the
# TTFT of long prompts? How would you choose the budget?
#
# *Your answer:*
# <!-- ### BEGIN SOLUTION -->
#
# A step has a cost of its own, whatever is in it. With 64 tokens per step a long prompt needs many steps, pays that cost
# each time, and shares each with the decoding users, so its TTFT grows a lot; with more than 64 users even decoding does
# not fit into one step, and throughput falls. I would state a limit for the gap between two tokens, measure how long a
# step with n tokens takes (the two costs fitted above), and take the largest budget whose step stays below the limit.
# <!-- ### END SOLUTION -->

# %% [markdown]
# ## Finish
#
# `lab.finish()` writes the result file and holds it against what this lab must have measured. It raises when something
# is missing.

# %%
lab.finish()
