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
# # Lab 3.3.2: SGLang and RadixAttention
#
# *Module 3.3, Model Deployment & Inference Engines. About 2 hours with the exercises; the measurements alone take a few
# minutes.*
#
# Most prompts begin like another one. Every user of an assistant sends the same system prompt, every turn of a chat
# repeats the turns before it, every question about a document carries the document. An engine that reads the same
# beginning again and again wastes most of its prefill. **RadixAttention**, SGLang's prefix cache, keeps what it has read
# in a tree. In this lab you will:
#
# 1. build that tree yourself: match, insert with a split, evict, lock;
# 2. predict, token by token, what the cache will save, and hold the engine's own count against it;
# 3. measure cold, warm and *cache off* on two real engines, SGLang and vLLM;
# 4. put the cache under pressure, and win back what is lost by choosing the order of the requests;
# 5. write programs in SGLang's own language, and make a model answer in valid JSON every time.
#
# A widespread figure says that SGLang is "29-45% faster than vLLM on shared prefixes". It comes without a machine, a
# model or a load. You will have your own figure, with all three.
#
# **How to work.** Run the cells in order. Cells marked *Exercise* hold a function or a class for you to write. The
# notebook runs through even when none is written. `lab.check(...)` answers at once.

# %% tags=["parameters"]
profile = "auto"  # or "cpu"
scale = "full"  # or "quick": fewer requests and repeats
out = "results"  # folder of the result file

# %% [markdown]
# `Lab` says which engines can run here. This lab needs two: SGLang, and vLLM to compare with.

# %%
import json
import re
from contextlib import ExitStack
from functools import partial

import jsonschema
import pandas as pd

from labs_helpers import bench, plots
from labs_helpers.bench import prefix_cache
from labs_helpers.engines import inside
from labs_helpers.errors import LabsError
from labs_helpers.lab import Lab
from labs_helpers.model import workloads

lab = Lab("3.3.2", profile=profile, scale=scale, out=out)

# %% [markdown]
# ## Part 1. A tree of prompts
#
# Prefill computes keys and values for every token of the prompt. They depend on the token *and on all tokens before
# it*, and on nothing after it. So two prompts that begin alike have the same KV entries, up to the first token in which
# they differ. Only prefixes can be shared: the same paragraph after a different first word is a different paragraph.
#
# A **radix tree** stores prefixes without storing anything twice. Each node holds a *run* of tokens; what may follow it
# hangs below as children, told apart by their first token. When a new prompt leaves a run in the middle, the run is
# *split*: the common part stays above, the rest and the newcomer become its children.
#
# Two more things make it a cache. Memory ends, so leaves that nobody used for the longest time are **evicted**; a
# parent can only go after its children, since they mean nothing without it. And the prefix of a request that is
# *running* must not go at all: it is **locked**.
#
# ### Exercise 1: the radix tree
#
# `Node` and `__init__` are given, with what the picture below will read. `tokens` is a list. Every call of `match` and
# `insert` is one tick of the clock: `self.clock` goes up by one, and every node on the way, from the last one reached up
# to the root, gets it as `last_used`.
#
# - `match(tokens)`: how many of the first tokens are in the tree. Every node on the way gets one more of `hits`.
# - `insert(tokens)`: put them in. Return how many were new.
# - `lock(tokens)`, `unlock(tokens)`: one more, or one less, of `locks` for every node on the way. Return how many of the
#   first tokens are in the tree. The clock stands still. `unlock` is called with exactly those tokens that were locked.
# - `evict(wanted)`: remove leaves without locks, the one with the oldest `last_used` first, until at least `wanted` tokens
#   are gone or nothing is left to remove. A leaf goes as a whole. Return how many tokens went.
#
# A run has *one* age and *one* count of locks. So wherever a match, an insert or a lock ends in the middle of a run,
# split it there: the upper half inherits age, locks and hits. Begin with `_split` and `_walk`, which serve the other four;
# `_up` and `_below` are given.


# %% labs={"exercise": "RadixTree"}
class Node:
    """A run of tokens, and what may come after it."""

    def __init__(self, tokens=(), parent=None):
        self.tokens = list(tokens)
        self.parent = parent
        self.children = {}  # first token -> Node
        self.last_used = self.locks = self.hits = 0


class RadixTree:
    """The prefixes that are cached."""

    def __init__(self):
        self.root = Node()
        self.clock = 0

    def match(self, tokens):
        """How many of the first tokens are in the tree."""
        ### BEGIN SOLUTION
        node, matched = self._walk(tokens)
        self.clock += 1
        for passed in self._up(node):
            passed.last_used = self.clock
            passed.hits += 1
        return matched
        ### END SOLUTION

    def insert(self, tokens):
        """Put the tokens in; returns how many of them were new."""
        ### BEGIN SOLUTION
        node, matched = self._walk(tokens)
        if matched < len(tokens):
            leaf = Node(tokens[matched:], node)
            node.children[tokens[matched]] = leaf
            node = leaf
        self.clock += 1
        for passed in self._up(node):
            passed.last_used = self.clock
        return len(tokens) - matched
        ### END SOLUTION

    def lock(self, tokens):
        """Keep what is there of these tokens; returns how many that are."""
        ### BEGIN SOLUTION
        node, matched = self._walk(tokens)
        for passed in self._up(node):
            passed.locks += 1
        return matched
        ### END SOLUTION

    def unlock(self, tokens):
        """Take one lock back; returns how many tokens it was on."""
        ### BEGIN SOLUTION
        node, matched = self._walk(tokens)
        for passed in self._up(node):
            passed.locks -= 1
        return matched
        ### END SOLUTION

    def evict(self, wanted):
        """Remove the leaves that were used longest ago; returns how many tokens went."""
        ### BEGIN SOLUTION
        freed = 0
        while freed < wanted:
            leaves = [node for node in self._below(self.root) if not node.children and not node.locks]
            if not leaves:
                break
            oldest = min(leaves, key=lambda node: node.last_used)
            del oldest.parent.children[oldest.tokens[0]]
            freed += len(oldest.tokens)
        return freed
        ### END SOLUTION

    def _walk(self, tokens):
        """The node where the longest prefix in the tree ends, and that prefix's length; splits where it must."""
        ### BEGIN SOLUTION
        node, matched = self.root, 0
        while matched < len(tokens) and tokens[matched] in node.children:
            node = node.children[tokens[matched]]
            common = 0
            for mine, theirs in zip(node.tokens, tokens[matched:]):
                if mine != theirs:
                    break
                common += 1
            matched += common
            if common < len(node.tokens):
                return self._split(node, common), matched
        return node, matched
        ### END SOLUTION

    def _split(self, node, at):
        """Part a run after `at` tokens; returns its upper half."""
        ### BEGIN SOLUTION
        upper = Node(node.tokens[:at], node.parent)
        upper.last_used, upper.locks, upper.hits = node.last_used, node.locks, node.hits
        node.parent.children[node.tokens[0]] = upper
        node.tokens, node.parent = node.tokens[at:], upper
        upper.children[node.tokens[0]] = node
        return upper
        ### END SOLUTION

    def _up(self, node):
        """This node, its parent, and so on up to the root."""
        while node is not None:
            yield node
            node = node.parent

    def _below(self, node):
        """Every node below this one."""
        for child in node.children.values():
            yield child
            yield from self._below(child)


lab.check("RadixTree", RadixTree)

# %% [markdown]
# ### The tree as a picture
#
# Three documents, two sections of each, three questions on each section: 18 prompts, one after the other. The picture is
# drawn from the nodes themselves: your own once your tree passes, the bench's until then. Each box is a run, as wide as
# it is long. Add up the widths of the boxes, and compare with the widths of 18 whole prompts.

# %%
Tree = RadixTree if lab.solved("RadixTree") else bench.RadixTree
forest = workloads.branches(documents=3, sections=2, questions=3)
tree = Tree()
for prompt in forest:
    tree.match(prompt[:-1])
    tree.insert(prompt)
plots.radix_tree(tree.root, workloads.label, title="18 prompts, each token stored once")

# %% [markdown]
# **What just happened?** The instruction on the left was read once and hit 17 times. Each document was hit by every later
# question about it. A cache that knows *one* common prefix would only have the leftmost box; the tree has all levels.
# The prompts came in a shuffled order, and the tree does not mind: what is shared is shared.
#
# ## Part 2. Predict before you measure
#
# A cache is deterministic. Who knows the requests knows what it will save, to the token. Both engines of this lab follow
# the same rule:
#
# - After a request, the cache holds its prompt, and its output *without the last token*: the KV entry of a token is
#   computed when the next one is made, and after the last one none was.
# - A later prompt takes from the cache what it shares with one of them, in **whole pages** of `page_size` tokens.
# - But never all of it. The last token of a prompt is always computed: its result chooses the first token of the answer.
#
# SGLang's pages are 1 token by default; vLLM's (it says *blocks*) are 128 on a CPU.
#
# ### Exercise 2: cached tokens of a trace
#
# `trace` is a list of `[prompt, output]`, both lists of tokens, in order of service; each ends before the next begins, and
# nothing is ever evicted. Return a list: how many prompt tokens of each request come from the cache.


# %% labs={"exercise": "predict"}
def predict(trace, page_size):
    """Cached prompt tokens of each request."""
    ### BEGIN SOLUTION
    cached, kept = [], []
    for prompt, output in trace:
        best = 0
        for before in kept:
            common = 0
            while common < min(len(before), len(prompt) - 1) and before[common] == prompt[common]:
                common += 1
            best = max(best, common)
        cached.append(best // page_size * page_size)
        kept.append(prompt + output[:-1])
    return cached
    ### END SOLUTION


lab.check("predict", predict)

# %% [markdown]
# ## Part 3. What we will measure
#
# Everything below runs twice per engine: with the prefix cache, and without. The second is the **control**: the same
# prompts, the same machine, the same minute, and the one thing changed that we make a claim about.
#
# The page size is given to each engine, so that we know what we predict for. And SGLang's pool is small on purpose: 3,072
# tokens are enough for each of the loads of Part 5, and too few for Part 6, which is about that.

# %%
POOL = 3072
PAGE = {"sglang": 1, "vllm": 128}
SAME = {"sglang": {"page_size": 1, "max_total_tokens": POOL}, "vllm": {"block_size": 128}}
ON = {"sglang": SAME["sglang"] | {"radix_cache": True}, "vllm": SAME["vllm"] | {"prefix_caching": True}}
OFF = {"sglang": SAME["sglang"] | {"radix_cache": False}, "vllm": SAME["vllm"] | {"prefix_caching": False}}
expected = predict if lab.solved("predict") else bench.predict_cached

# %% [markdown]
# A prediction must start from a cache whose content is known. The simplest content is none: `/flush_cache` empties
# SGLang's tree.


# %%
async def flush(server):
    """Empty SGLang's tree. vLLM has no such request; its loads below begin with texts of their own."""
    if server.engine.name == "sglang":
        url = server.base_url + "/flush_cache"
        async with bench.open_session() as session, session.post(url, params={"timeout": 10}) as answer:
            answer.raise_for_status()


# %% [markdown]
# A load whose cached tokens we predict, request by request, before it is sent. One stream at a time, so that the order of
# service is the order of the list.


# %%
async def measure_predicted(server, name, work, *metrics):
    """Send these prompts one by one and record how far the engine was off the prediction."""
    await flush(server)
    predicted = expected([[prompt, []] for prompt in work], PAGE[server.engine.name])
    run = await bench.run(server, work, concurrency=1, output_tokens=2, warmup=False, workload=name)
    lab.record(run.measurements("cached_tokens", "prompt_tokens", "completion_tokens", *metrics))
    lab.record(bench.prediction_error(run, predicted, PAGE[server.engine.name]))
    return run


# %% [markdown]
# First, the pages. Each prompt is sent twice, at lengths around the page. How much of the second copy comes from the
# cache?


# %%
async def measure_pages(server):
    """The second copy of a prompt, at lengths around the page."""
    for length in (64, 128, 129, 192, 256, 257, 384, 385):
        (prompt,) = workloads.shared_prefix(1, length - 48, seed=f"pages/{length}")
        await measure_predicted(server, "the same twice", [prompt, prompt])


# %% [markdown]
# Then TTFT. For several documents of each length, the first question is **cold**: nobody has read the document yet. The
# next ones are **warm**. Without the cache, both must be the same; where the cold figures with and without cache differ,
# the machine has changed between the two, and the comparison is worth that much less.

# %%
LENGTHS = lab.pick(quick=(256, 2048), full=(256, 1024, 2048))
documents, questions = lab.pick(quick=1, full=2), 3


async def measure_lengths(server, suffix):
    """One document after the other: the first question about it, and the ones after it."""
    for length in LENGTHS:
        sets = [workloads.shared_prefix(1 + questions, length, seed=f"{length}/{i}") for i in range(documents)]
        work = [prompt for one in sets for prompt in one]
        run = await bench.run(
            server, work, concurrency=1, output_tokens=2, warmup=length == LENGTHS[0], workload="documents" + suffix
        )
        lab.record(run.measurements("cached_tokens", "completion_tokens"))
        first = run.samples[:: 1 + questions]
        for kind, belongs in (("cold", True), ("warm", False)):
            part = run.where(lambda sample: (sample in first) is belongs, workload=kind + suffix)
            lab.record(part.measurements("ttft", "cached_tokens", "prompt_tokens"))


# %% [markdown]
# Then throughput. Of a load, some share of the requests begins with a common prefix of 512 tokens, the others with 512
# tokens of their own. Look for two things below: from which share on it pays, and whether four streams at once profit as
# much as one.


# %%
async def measure_sharing(server, suffix):
    """Requests per second, by the share of them that have a prefix in common."""
    for streams in (1, 4):
        for share in lab.pick(quick=(0.0, 1.0), full=(0.0, 0.5, 1.0)):
            work = workloads.shared_prefix(lab.pick(4, 6), 512, share=share, seed=f"share/{streams}/{share}")
            run = await bench.run(
                server,
                work,
                concurrency=streams,
                output_tokens=16,
                warmup=False,
                workload=f"{share:.0%} share" + suffix,
            )
            lab.record(run.measurements("request_throughput", "cached_tokens", "completion_tokens"))


# %% [markdown]
# Three workloads of daily life. In *few-shot* prompts, worked examples stand before each question; three tasks take
# turns, each with its own. *Branches* are the prompts of the picture, at a larger size. Both are predicted.


# %%
async def measure_workloads(server):
    """Few-shot prompts of several tasks, and a tree of branches."""
    for name, work in TRACES.items():
        await measure_predicted(server, name, work, "ttft", "cache_hit_rate")


TRACES = {
    "few-shot": workloads.few_shot(tasks=3, shots=4, questions=lab.pick(quick=3, full=5)),
    "branches": workloads.branches(documents=3, sections=3, questions=3, seed=5),
}

# %% [markdown]
# In a *chat*, the answer becomes part of the next prompt. Its KV entries are in the cache already: not only prompts are
# reused, but also what the engine said itself. We keep every conversation, to compare with the prediction afterwards.

# %%
chats, TURNS = {}, lab.pick(quick=3, full=4)


async def measure_chat(server):
    """Several users share a system prompt; every turn sends the conversation so far."""
    system, users = workloads.conversations(lab.pick(quick=2, full=3), turns=TURNS, seed=9)
    talks = [[{"role": "system", "content": system}] for _ in users]
    trace = chats[server.engine.name] = []
    await flush(server)
    for turn in range(TURNS):
        for talk, asked in zip(talks, users):
            talk.append({"role": "user", "content": asked[turn]})
        run = await bench.run(
            server,
            talks,
            concurrency=1,
            output_tokens=32,
            ignore_eos=False,
            warmup=False,
            workload=f"chat, turn {turn + 1}",
        )
        lab.record(run.measurements("ttft", "cached_tokens", "prompt_tokens", "cache_hit_rate", "completion_tokens"))
        for talk, sample in zip(talks, run.samples):
            end = [0] if sample.finish_reason == "stop" else []  # a marker, generated but not in the text
            trace.append((workloads.chat_ids(talk), workloads.text_ids(sample.text) + end, sample))
            talk.append({"role": "assistant", "content": sample.text})


# %% [markdown]
# ## Part 4. Output that must be valid
#
# An engine can forbid tokens. Before each step, a grammar says which tokens may come next, and all others get the
# probability 0. What comes out is valid by construction, whatever the model would have liked to say.
#
# We ask for a JSON object fifty times, with and without a schema. Each prompt names a server, a port and an engine; so we
# can also ask whether the answer is *right*, which is another question than whether it is valid.

# %%
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9-]{2,24}$"},
        "port": {"type": "integer", "minimum": 1024, "maximum": 65535},
        "engine": {"enum": ["vLLM", "SGLang", "llama.cpp", "Ollama", "TensorRT-LLM", "transformers"]},
    },
    "required": ["name", "port", "engine"],
    "additionalProperties": False,
}
entries = workloads.service_entries(50)
print(*entries[0], sep="\n")

# %% [markdown]
# An answer is *valid* when it is JSON, all of it, and the schema allows it.


# %%
def is_entry(text):
    """Whether this text is a JSON object that the schema allows."""
    try:
        jsonschema.validate(json.loads(text), SCHEMA)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


# %% [markdown]
# A schema is spelled the same for both engines, since OpenAI's API has a field for it. For a regular expression or a
# grammar each engine has its own. A misspelled field is *silently ignored* by most servers, and the answer is then free:
# check the output, not the request.


# %%
def constrained(server, kind, value):
    """The fields of a request that hold its answer to a JSON schema, a regular expression or an EBNF grammar."""
    if kind == "json":
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "entry", "schema": value}}}
    if server.engine.name == "sglang":
        return {kind: value}
    return {"structured_outputs": {"grammar" if kind == "ebnf" else kind: value}}


# %% [markdown]
# The answer may end when the model wants it to end: cut off at a fixed length, even a perfect object would be invalid.


# %%
async def ask(server, asked, workload, constraint):
    """Chat requests that may end when the model wants to."""
    return await bench.run(
        server, asked, chat=True, concurrency=10, output_tokens=64, ignore_eos=False, warmup=False,
        workload=workload, extra=constraint, progress=False,
    )  # fmt: skip


# %% [markdown]
# The two kinds take turns, ten requests at a time, and `compare` turns the five pairs into one figure with its spread:
# decode speed under the schema against free decode. That is the *cost* of the constraint.

# %%
answers = {}


async def measure_json(server):
    """Fifty answers with a schema and fifty without: how many are valid, and what does it cost?"""
    sides = {"json free": {}, "json schema": constrained(server, "json", SCHEMA)}
    runs = {kind: [] for kind in sides}

    async def ten(kind):
        part = entries[10 * len(runs[kind]) :][:10]
        runs[kind].append(await ask(server, [prompt for prompt, _ in part], kind, sides[kind]))
        return runs[kind][-1]

    cost = await bench.compare({kind: partial(ten, kind) for kind in sides}, "decode_throughput", repeats=5)
    lab.record(cost.measurement())
    for kind, taken in runs.items():
        texts = answers[server.engine.name, kind] = [sample.text for run in taken for sample in run.samples]
        lab.record(taken[-1].measurement("valid_rate", sum(map(is_entry, texts)) / len(texts), n=len(texts)))


# %% [markdown]
# The other two kinds of constraint, and a harder question: can a constraint get a *form* out of a model that it was never
# shown? Ours answers with URLs and with YAML. A **regular expression** asks it for host and port alone; an **EBNF
# grammar**, whose named rules may use one another, for the sections of an INI file. Guess how many answers will be valid
# without the constraint, and how many will be right with it.

# %%
ADDRESS = r"([0-9]{1,3}\.){3}[0-9]{1,3}:[1-9][0-9]{3,4}"
SERVICE = r"""
root ::= "[" name "]\nengine = " engine "\nmodel = " name "\nport = " port "\nreplicas = " number
name ::= [a-z] [a-z0-9/_.-]{1,23}
engine ::= "vLLM" | "SGLang" | "llama.cpp" | "Ollama" | "TensorRT-LLM" | "transformers"
port ::= [1-9] [0-9]{3,4}
number ::= [1-9] [0-9]?
"""
SECTION = r"\[[a-z][a-z0-9/_.-]+\]\nengine = \S+\nmodel = \S+\nport = [1-9]\d{3,4}\nreplicas = [1-9]\d?"
hosts = [(f"Base URL for host 10.0.{i}.{i + 7}, port {8000 + i}?", f"10.0.{i}.{i + 7}:{8000 + i}") for i in range(10)]
services = [
    (
        f"Write YAML for the service {e['name']}: {e['engine']} with toy-{i}b on port {e['port']}, {i + 1} replicas.",
        f"[{e['name']}]\nengine = {e['engine']}\nmodel = toy-{i}b\nport = {e['port']}\nreplicas = {i + 1}",
    )
    for i, (_, e) in enumerate(entries[:10], 1)
]


async def measure_grammars(server):
    """Ten answers each under a regular expression and under a grammar, and ten without."""
    for kind, work, value, pattern in (("regex", hosts, ADDRESS, ADDRESS), ("ebnf", services, SERVICE, SECTION)):
        for workload, constraint in ((f"{kind} free", {}), (kind, constrained(server, kind, value))):
            run = await ask(server, [prompt for prompt, _ in work], workload, constraint)
            texts = answers[server.engine.name, workload] = [sample.text for sample in run.samples]
            valid = sum(re.fullmatch(pattern, text.strip()) is not None for text in texts)
            lab.record(run.measurement("valid_rate", valid / len(texts), n=len(texts)))


# %% [markdown]
# ## Part 5. Run it
#
# Four servers, one after the other. With the cache off, only what the cache is supposed to change is measured again. The
# last one, SGLang with its tree, stays up: Part 6 goes on with it, and `running.close()` will stop it. (Should anything
# fail before that, it ends with the notebook's kernel.)


# %%
async def measure_all(server):
    """Every load of Parts 3 and 4."""
    for measure in (measure_pages, measure_workloads, measure_chat, measure_json, measure_grammars):
        await measure(server)
    await measure_lengths(server, "")
    await measure_sharing(server, "")


with lab.engine("vllm", **ON["vllm"]) as server:
    await measure_all(server)
for name in ("vllm", "sglang"):
    with lab.engine(name, **OFF[name]) as server:
        await measure_lengths(server, ", cache off")
        await measure_sharing(server, ", cache off")

running = ExitStack()
server = running.enter_context(lab.engine("sglang", **ON["sglang"]))
await measure_all(server)

# %% [markdown]
# ### Pages
#
# The cached tokens of the second copy of a prompt, by its length. SGLang's line rises token by token; vLLM's is a
# staircase with steps of a block.

# %%
twice = [m for m in lab.measurements("cached_tokens") if m.load.workload == "the same twice"]
plots.lines(twice, "cached_tokens", x="prompt_tokens", title="What a page size costs")

# %% [markdown]
# **What just happened?** A prompt of 128 tokens saves vLLM nothing: of its one block the last token must be computed, and
# a block is taken whole or not at all. One token more, and 128 are saved. Large pages mean fewer entries to look up and
# to keep; small pages waste less of a prefix. On a GPU vLLM's default is 16.
#
# The prediction was exact, or not: this is the engine's own count against your function's.

# %%
pd.DataFrame(
    [
        {"engine": m.engine, "workload": m.load.workload, "requests": m.n, "pages off, at worst": m.value}
        for m in lab.measurements("cache_prediction_error")
    ]
).groupby(["engine", "workload"]).agg({"requests": "sum", "pages off, at worst": "max"})

# %% [markdown]
# ### TTFT, cold, warm, and without the cache
#
# Look at three things. Do the two cold lines and the warm one without cache lie together? How does the warm line with
# cache depend on the length of the prefix? And how far apart are they at 2,048 tokens?


# %%
def ttft_of(engine):
    """TTFT by prefix length, of the loads made for it."""
    return [m for m in lab.measurements("ttft", engine=engine) if m.load.workload.split(",")[0] in ("cold", "warm")]


plots.lines(ttft_of("sglang"), "ttft", x="prompt_tokens", by_workload=True, title="SGLang: TTFT by prompt length")

# %% [markdown]
# The same on vLLM, whose prefix cache is on by default.

# %%
plots.lines(ttft_of("vllm"), "ttft", x="prompt_tokens", by_workload=True, title="vLLM: TTFT by prompt length")

# %% [markdown]
# And as a table, with the figure that this lab set out to check. *Saved* are the prompt tokens that the engine took from
# its cache, by its own count, of all that were sent warm.

# %%
rows = {}
for m in [*ttft_of("sglang"), *ttft_of("vllm")]:
    rows.setdefault((m.engine, round(m.load.prompt_tokens)), {})[m.load.workload] = round(m.value, 1)
for m in lab.measurements("cached_tokens"):
    if m.load.workload == "warm":
        sent = m.n * m.load.prompt_tokens
        rows[m.engine, round(m.load.prompt_tokens)]["saved"] = f"{m.value:,.0f} of {sent:,.0f}"
table = pd.DataFrame(rows).T.rename_axis(["engine", "prompt tokens"])
table["off / warm"] = (table["warm, cache off"] / table["warm"]).astype(float).round(1)
table[["cold", "cold, cache off", "warm, cache off", "warm", "off / warm", "saved"]]

# %% [markdown]
# **What just happened?** The column *off / warm* is what prefix caching is worth: a factor that grows with the prefix, in
# both engines. Against it, compare the two engines with each other in the column *warm*. If "29-45% faster than vLLM" were
# a property of RadixAttention, it would show there, on every machine; what you see there instead is how fast each engine
# prefills a short tail, with these kernels, on this processor. Now compare, at the longest prefix, the slower engine with
# its cache on against the faster one with its cache off. Which of the two choices, engine or cache, mattered more? That
# is the finding one can carry to another machine.
#
# SGLang's kernels here are the course's own, written in plain PyTorch: the server, its scheduler and its tree are real,
# but its speed against vLLM's says nothing about either on a GPU.
#
# ### Throughput by share
#
# Requests per second, by the share of requests with a common prefix, at one and at four streams, and how many times as
# many as without the cache.

# %%
shares = {}
for m in lab.measurements("request_throughput"):
    name, _, off = m.load.workload.partition(", ")
    if name.endswith("share"):
        shares.setdefault((m.engine, m.load.concurrency, name), {})[off or "cache on"] = m.value
table = pd.DataFrame(shares).T.rename_axis(["engine", "streams", "load"]).sort_index()
table["on / off"] = table["cache on"] / table["cache off"]
table[["cache off", "cache on", "on / off"]].round(2)

# %% [markdown]
# **What just happened?** The rows at 0% are the price of keeping a tree that is never hit. It is small, and that is why
# the cache is on by default; how small, this table cannot say. Each of its figures is *one* run of a few requests, two
# such runs easily differ by a fifth, and nothing in the table tells you so. Where a difference is that small, take turns
# and count pairs, as `compare` does in Parts 4 and 6. At 100% and one stream the gain is beyond such doubts: a request is
# only its tail and its output. At four streams there is a second effect: requests that arrive together on a cold prefix
# may *all* compute it, because none of them has finished it yet. Here that is the first four of a handful. Where the row
# of four streams gains little, this is why; a longer load would dilute it.
#
# ### Workloads: what a tree has that a prefix has not
#
# Three caches, for the same prompts. One keeps the single prefix that *all* prompts share (a fixed system prompt). One
# keeps the request before (a slot, as llama.cpp has). One keeps a tree. The first two are computed; the tree is predicted,
# and measured on both engines.


# %%
def measured_cached(engine, workload):
    """The engine's own count of cached prompt tokens under a workload."""
    return sum(m.value for m in lab.measurements("cached_tokens", engine=engine) if m.load.workload == workload)


pd.DataFrame(
    {
        name: {
            "prompt tokens": sum(map(len, work)),
            "one common prefix": prefix_cache.one_prefix(work),
            "the request before": prefix_cache.last_request_only(work),
            "tree, predicted": sum(expected([[prompt, []] for prompt in work], 1)),
            "SGLang": measured_cached("sglang", name),
            "vLLM": measured_cached("vllm", name),
        }
        for name, work in TRACES.items()
    }
).T.astype(int)

# %% [markdown]
# **What just happened?** The one common prefix is short, and the request before is often of another task: both save
# little. The tree holds all tasks and all levels at once. vLLM saves less than SGLang here only by its blocks of 128:
# it finds prefixes by a hash of each block and everything before it, which is a tree as well, only flattened.
#
# ### Chat
#
# The share of each turn's prompt that came from the cache. Then the prediction, made from the conversation's text.

# %%
for engine, trace in chats.items():
    rates = [m.value for m in lab.measurements("cache_hit_rate", engine=engine) if m.load.workload.startswith("chat")]
    counted = sum(sample.cached_tokens for _, _, sample in trace)
    said = sum(expected([[prompt, output] for prompt, output, _ in trace], PAGE[engine]))
    print(f"{engine:<7} from the cache, turn by turn: {', '.join(f'{rate:.0%}' for rate in rates)}")
    print(f"{engine:<7} predicted {said} cached tokens, the engine counted {counted}")

# %% [markdown]
# **What just happened?** The first user pays for the system prompt, the others find it. From the second turn on, nearly
# the whole conversation is cached, the engine's own answers included. If the counts differ, look for the reason in the
# text: the engine *generated* certain tokens, but the next request sends *text*, which is cut into tokens anew. Where
# the two cuts differ, the match ends there. Clients that send token ids do not have this problem.
#
# ### Valid output
#
# How many answers were valid, with and without a constraint, and how many were also *right*: an object with the prompt's
# three values, the prompt's host and port, a section with all that the prompt said.


# %%
def is_right(kind, text, expected):
    """Whether the answer says what the prompt said."""
    return is_entry(text) and json.loads(text) == expected if kind == "json" else text.strip() == expected


wanted = {"json": [entry for _, entry in entries], "regex": [a for _, a in hosts], "ebnf": [a for _, a in services]}
rows = {}
for (engine, workload), texts in answers.items():
    kind = workload.split()[0]
    valid = [m.value for m in lab.measurements("valid_rate", engine=engine) if m.load.workload == workload]
    rows[engine, workload] = {
        "valid": f"{valid[0]:.0%} of {len(texts)}",
        "right": sum(is_right(kind, *pair) for pair in zip(texts, wanted[kind])),
        "first answer": texts[0][:44],
    }
pd.DataFrame(rows).T

# %% [markdown]
# And what the constraint costs: decode speed under the schema, relative to free decode, with its spread over five pairs.

# %%
costs = [m for m in lab.measurements("speedup") if m.load.workload == "json schema"]
for m in costs:
    print(f"{m.engine}: {m.value:.2f} of free decode [{m.spread.low:.2f}, {m.spread.high:.2f}], n={m.n} pairs")

# %% [markdown]
# **What just happened?** Under a constraint *every* answer is valid that comes to its end, also where the model had another
# idea. (One that is cut off at 64 tokens is not: a grammar cannot know how much room is left.) JSON it writes well by
# itself, and the schema catches the rare slip. The other two forms it was never shown: without the constraint no answer
# is valid, with it they are, and yet hardly one is right. At each step the best *allowed* token was taken, and the model,
# led where it had never been, lost the thread. A grammar guarantees the form; it does not teach it. That is the prompt's
# part (examples), or the training's. So measure both, and do not mistake valid for right.
#
# The cost is the mask that is computed at every step, a matter of milliseconds for any model: it shows where steps are
# short, as here, and hides behind the matrix products of a large model. Where the spread includes 1, this run could not
# see it at all.
#
# ## Part 6. Under pressure
#
# Until now everything fitted. Now prefixes compete for the 3,072 tokens of the pool. `simulate` puts your tree to work: it
# matches, locks, evicts and inserts as the engine does, request by request, and so predicts the hit rate for any cache
# size. Sixteen prefixes, some far more popular than others; their length decides how many fit.

# %%
PREFIXES, ASKED = 16, lab.pick(quick=24, full=32)
traces = {length: workloads.popular(PREFIXES, ASKED, length, seed=3) for length in (96, 192, 384, 768)}


def simulated(work, capacity):
    """Share of the prompt tokens that a cache of this capacity saves."""
    cached = bench.simulate(Tree(), [(prompt, [0, 0]) for prompt in work], capacity)
    return sum(cached) / sum(map(len, work))


predicted = [(POOL / (PREFIXES * length), simulated(work, POOL)) for length, work in traces.items()]

# %% [markdown]
# Four loads for one pool: their working sets are from half its size to four times as large. Each is predicted first, and
# measured in Part 9.

# %%
under_pressure = []


async def measure_pressure(server):
    """The hit rate of one pool, for working sets from half its size to four times."""
    for length, work in traces.items():
        await flush(server)
        run = await bench.run(
            server, work, concurrency=1, output_tokens=2, warmup=False, workload=f"16 prefixes of {length}"
        )
        lab.record(run.measurements("cached_tokens", "prompt_tokens"))
        (rate,) = run.measurements("cache_hit_rate")
        lab.record(rate)
        under_pressure.append((POOL / (PREFIXES * length), rate))


# %% [markdown]
# ### Exercise 3: choose the order
#
# When the requests are all there (a batch job, a full queue), their order is ours to choose. Requests that share a
# prefix should come together: then it is still there when the next one needs it, however small the cache. *Longest
# shared prefix first*: after each request, take the one that shares most with it.
#
# `prompts` is a list of token lists. Return their indices in an order in which the tokens that neighbours share, added
# up, are as many as possible. Any such order will do.


# %% labs={"exercise": "order"}
def order(prompts):
    """Indices of the prompts, in an order in which each shares as much as possible with the one before it."""
    ### BEGIN SOLUTION
    # In alphabetical order, prompts with a common prefix stand together, at every depth: a walk through their tree.
    return sorted(range(len(prompts)), key=lambda i: prompts[i])
    ### END SOLUTION


lab.check("order", order)

# %% [markdown]
# Four documents with sections and questions, more than the pool can hold: in the order in which they came, and in yours.
# Both start from an empty tree and take turns.

# %%
arrived = workloads.branches(4, 2, 2, sizes=(64, 512, 128, 32), seed=7)
chosen = order if lab.solved("order") else bench.longest_prefix_first
queues = {"as they came": arrived, "in tree order": [arrived[i] for i in chosen(arrived)]}


async def measure_order(server):
    """The same requests in two orders."""
    runs = {}

    async def take(name):
        await flush(server)
        runs[name] = await bench.run(
            server, queues[name], concurrency=1, output_tokens=2, warmup=False, workload=name, progress=False
        )
        return runs[name]

    gain = await bench.compare({name: partial(take, name) for name in queues}, "request_throughput", repeats=3)
    lab.record(gain.measurement())
    for run in runs.values():
        lab.record(run.measurements("cache_hit_rate", "cached_tokens", "request_throughput"))


# %% [markdown]
# ## Part 7. SGLang's own language
#
# SGLang is also a language: a program is a Python function that appends to a state `s`. `gen` lets the model write,
# `select` lets it choose among given answers by their probability, `fork` continues one state in several ways at once,
# and `run_batch` runs a program on many inputs. The runtime sees what such programs share, because all of it is prefix.
#
# The language lives in SGLang's own environment, not in this notebook's. So the function below is written here and
# called *there*, by `inside.call`: it brings its own imports, takes texts and numbers, and returns them. One trap: the
# endpoint guesses the chat template from the model's name, and for an unknown name falls back to one that our model has
# never seen. Name it.


# %%
def triage(url, reports):
    import sglang as sgl

    sgl.set_default_backend(sgl.RuntimeEndpoint(url, chat_template_name="chatml"))

    @sgl.function
    def look_at(s, report):
        s += sgl.system("You help students to serve language models.")
        s += sgl.user(report)
        s += sgl.assistant("The cause is " + sgl.select("cause", ["memory", "the network", "a long queue"]) + ".")
        branches = s.fork(2)
        for branch, question in zip(branches, ("What should I do?", "How do I notice it earlier?")):
            branch += sgl.user(question)
            branch += sgl.assistant(sgl.gen("answer", max_tokens=24, temperature=0))
        s["advice"], s["warning"] = branches[0]["answer"], branches[1]["answer"]

    states = look_at.run_batch([{"report": report} for report in reports], num_threads=4)
    return [[state[name] for name in ("cause", "advice", "warning")] for state in states]


# %% [markdown]
# The counters of the server, read before and after, say how much of these programs was prefix.

# %%
REPORTS = [
    "The server stops with an out of memory error when many users come.",
    "Answers begin late although the server is idle.",
    "The first token takes long when the queue is full.",
    "Requests fail now and then between two machines.",
]
verdicts = []


async def run_program(server):
    """The program above on every report, and what the tree saved of it."""
    await flush(server)
    before = await server.counters()
    verdicts.extend(inside.call(server, triage, server.base_url, REPORTS))
    spent = (await server.counters()).since(before)
    print(f"the programs sent {spent.prompt_tokens:.0f} prompt tokens, {spent.cached_tokens:.0f} of them cached")


# %% [markdown]
# ## Part 8. What an engine refuses
#
# An engine must say no clearly: a prompt longer than its pool, a schema that is none, a regular expression that cannot be
# read. Each of these reaches you as one sentence. The server survives them all.


# %%
async def refused(server, what, prompt, constraint):
    """Send one request that cannot be served, and show what comes back."""
    try:
        run = await bench.run(
            server, [prompt], output_tokens=8, warmup=False, progress=False, extra=constraint, ignore_eos=False
        )
        print(f"{what}: was answered with {run.samples[0].text!r}")
    except LabsError as error:
        print(f"{what}:\n  {error}")


# %% [markdown]
# Three requests that cannot be served. Guess what each message will say.


# %%
async def ask_the_impossible(server):
    """A prompt longer than the pool, an invalid schema, an invalid expression."""
    (too_long,) = workloads.shared_prefix(1, POOL + 100, seed=1)
    await refused(server, "a prompt longer than the pool", too_long, {})
    await refused(server, "an invalid schema", "Answer:", constrained(server, "json", {"type": "nothing"}))
    await refused(server, "an invalid expression", "Answer:", constrained(server, "regex", "[a-"))


# %% [markdown]
# ## Part 9. Run the rest
#
# On the server that is still up. Afterwards it is stopped; to try something else on it, start it again as in Part 5.

# %%
await measure_pressure(server)
await measure_order(server)
await run_program(server)
await ask_the_impossible(server)
running.close()

# %% [markdown]
# ### The hit rate under pressure
#
# Do the points lie on the line? They need not lie exactly: SGLang splits its runs in a few more places than your tree, so
# whole leaves go at other moments.

# %%
plots.hit_rate_by_cache_size(under_pressure, predicted)

# %% [markdown]
# **What just happened?** Where everything fits, only the first visit to a prefix is a miss, and what is left is the tail of
# each prompt: the shorter the prefix, the larger that share, so the line falls again at the right. Left of 1, least
# recently used keeps the popular prefixes and loses the rare ones, so half the memory costs less than half the hits. That
# is worth knowing before you buy memory. It is also why a hit rate says little without the traffic it was measured on.
#
# ### The order of the requests

# %%
for name, work in queues.items():
    (rate,) = [m for m in lab.measurements("cache_hit_rate") if m.load.workload == name]
    print(f"{name:<14} predicted {simulated(work, POOL):.0%} from the cache, measured {rate.value:.0%}")
(gain,) = [m for m in lab.measurements("speedup") if m.load.workload == "in tree order"]
print(
    f"{gain.value:.2f} times the requests per second [{gain.spread.low:.2f}, {gain.spread.high:.2f}], n={gain.n} pairs"
)

# %% [markdown]
# **What just happened?** Nothing was added but an order. A walk through the tree, depth first, is optimal even for a
# cache that holds a single request: it never leaves a prefix before everything under it is done. SGLang can do this by
# itself with the requests that wait in its queue (`--schedule-policy lpm`, longest prefix match). The price is fairness:
# a request without relatives waits for all the families.
#
# ### The programs
#
# `select` always returns one of its choices; `gen` returns text.

# %%
pd.DataFrame(verdicts, columns=["cause", "advice", "warning"], index=[report[:32] + "…" for report in REPORTS])

# %% [markdown]
# **What just happened?** Four programs ran at once and asked the server several times each: for every choice of `select`,
# and for every branch of `fork`. Each request carried the whole text of its program so far; the counters above say how
# much of it came from the tree. A cause chosen by a model of this size is no diagnosis; the point is that it is always
# one of the three.
#
# ### Can we trust the count?
#
# Cached tokens, as the answers report them to the client, and as the engine's own counters add them up.

# %%
plots.witness_table([m for m in lab.measurements("cached_tokens") if m.witness])

# %% [markdown]
# ## Reflection
#
# Answer in a few sentences each; an instructor reads them.

# %% [markdown] labs={"question": "when-not"}
# **1. When is prefix caching worth nothing?** Describe two workloads, and say what you would look at in a log of requests
# to find out before switching it on.
#
# *Your answer:*
# <!-- ### BEGIN SOLUTION -->
#
# When prompts do not begin alike: a classification of texts where the instruction comes *after* the text, or a template
# that starts with a time stamp or a user name, which makes every prompt differ from its first tokens on. When the answer
# is long and the prompt short, prefill is a small part of the time and saving it changes little. And when the same prefix
# returns only after everything else has been through the cache, it has been evicted by then. From a log I would
# compute, for each prompt, the longest prefix it shares with an earlier one, in pages, and how many tokens lay in
# between: the first gives the hit rate of an endless cache, the second the size that is needed for it.
# <!-- ### END SOLUTION -->

# %% [markdown] labs={"question": "privacy"}
# **2. Two customers share one server.** What can one learn of the other's prompts from the TTFT of their own requests,
# and what would you do about it?
#
# *Your answer:*
# <!-- ### BEGIN SOLUTION -->
#
# A short TTFT for a long prompt says that somebody has sent this beginning before. So one customer can test guesses:
# send a suspected document or key, token by token, and see whether it is fast. The tree must be separated: a salt or a
# key per customer that becomes part of what is matched (vLLM's `cache_salt`, SGLang's `extra_key`), so that only
# requests of the same customer can share; or one server per customer; or only public system prompts are shared.
# The price is the hit rate across customers.
# <!-- ### END SOLUTION -->

# %% [markdown]
# ## Finish
#
# `lab.finish()` writes the result file and holds it against what this lab must have measured. It raises when something
# is missing.

# %%
lab.finish()
