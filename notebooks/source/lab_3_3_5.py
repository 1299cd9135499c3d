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
# # Lab 3.3.5: EAGLE-3 and its relatives
#
# *Module 3.3, Model Deployment & Inference Engines. About 2 hours with the exercises; the measurements alone take a few
# minutes.*
#
# In lab 3.3.4, each Medusa head guessed a token without knowing the one before it. **EAGLE** drafts one token after the
# other, and each knows the ones before. **EAGLE-3** is the form that engines serve today. In this lab you will:
#
# 1. see how an EAGLE-3 draft grows a tree where it is unsure, and a chain where it is not;
# 2. write the rejection sampling that keeps the model's own distribution, and prove that it does;
# 3. find the length of a chain from its acceptance rates, before you measure it;
# 4. compare six ways to draft, on the same prompts, in the same loop;
# 5. see where the time of a round goes, which decides what acceptance alone does not;
# 6. serve EAGLE-3 with vLLM and SGLang, and hold all of it against the published tables.
#
# **How to work.** Run the cells in order. Cells marked *Exercise* hold a function for you to write. The notebook runs
# through even when none is written. `lab.check(...)` answers at once.

# %% tags=["parameters"]
profile = "auto"  # or "cpu"
scale = "full"  # or "quick": fewer prompts and repeats
out = "results"  # folder of the result file

# %% [markdown]
# `Lab` says which engines can run here. This lab needs two: vLLM and SGLang.

# %%
import random
from dataclasses import replace

import pandas as pd

from labs_helpers import bench, plots, references, speculation
from labs_helpers.lab import Lab
from labs_helpers.model import workloads
from labs_helpers.model.prompts import chat_token_ids, prompts_by_class
from labs_helpers.speculation import by_hand
from labs_helpers.speculation.on_spark import on_spark
from labs_helpers.speculation.serving import sglang_config, vllm_config

lab = Lab("3.3.5", profile=profile, scale=scale, out=out)
target = speculation.Target.load(precision="fp32")

# %% [markdown]
# ## Part 1. What a draft may know
#
# | | reads | drafts | learned from |
# |---|---|---|---|
# | Medusa | the model's last hidden state | all places at once, each blind to the others | the tokens that came |
# | EAGLE | that state *and* the token that was written | one place after the other, by continuing the hidden states | the model's next hidden state, and its tokens |
# | EAGLE-3 | low, middle and high states, fused, and the token | one place after the other | the tokens, through several of its own steps |
#
# A hidden state alone leaves open which token was sampled from it. EAGLE's first idea is to give the draft that token as
# well. To go on, it needs a state that the model has not computed yet, so it predicts one: a *feature*. EAGLE-3 changed
# two things. Its layer need not imitate the model's top features any more; that was a second task, which cost capacity,
# and more training data helped little. It is trained only on the tokens, and during training it runs several steps on its
# **own** output (training-time test), so that step 4 meets in training what it will meet in use. And it reads three
# depths of the model instead of the top alone.
#
# The tree is no longer fixed. EAGLE-2 found that a draft's own probability says well how likely it is to be accepted. So
# the tree grows anew in every round: expand the nodes with the highest product of probabilities, and keep the best of
# all. Two rounds, with that product at each node: an answer that the model knows by heart, and a question from outside
# everything it has read. What differs?

# %%
grow = speculation.eagle3(target, depth=4, topk=3, nodes=10)
KNOWN, UNKNOWN = prompts_by_class("seen-like", 1, seed=350)[0], prompts_by_class("off-domain", 1, seed=5)[0]


def draw_round(question):
    """The tree that EAGLE-3 grows after the first token of an answer, and the path that the model accepts."""
    round_ = speculation.first_round(target, grow, chat_token_ids([("user", question)]))
    return plots.token_tree(
        round_.parents, workloads.pieces(round_.tokens), accepted=round_.accepted, title=question,
        notes=["", *(f"{p:.2f}" for p in round_.confidence[1:])],
    )  # fmt: skip


draw_round(KNOWN)

# %% [markdown]
# The model has never read about this one.

# %%
draw_round(UNKNOWN)

# %% [markdown]
# **What just happened?** The draft does not know whether it is right; it knows whether it is *sure*. Where it is, the tree
# becomes a deep chain. Where it is not, the same ten drafts go into breadth. A fixed tree, such as Medusa's in lab 3.3.4,
# can only be right on average.
#
# ## Part 2. Drafts that are sampled
#
# Until here the model was greedy, and a draft was right or wrong. With temperature the model *samples*, and then no single
# token is right. What must be kept is the **distribution**: over many runs, every text must come out as often as without
# speculation. Rejection sampling does exactly that (arXiv 2211.17192 and 2302.01318):
#
# - The draft draws a token *x* from its distribution *q*. The model's distribution at that place is *p*.
# - Accept *x* with probability min(1, *p(x)* / *q(x)*). What the draft says too often is thinned out.
# - If it is refused, draw the token from the **residual** instead: max(0, *p* - *q*), scaled so that it adds up to 1. That
#   is what the draft says too seldom. The round ends there.
# - If all drafts of the round are accepted, draw one more token from the model's distribution after them.
#
# ### Exercise 1: one round
#
# `drafted` is a list of tokens (numbers from 0). `q[i]` is the distribution that `drafted[i]` was drawn from, `p[i]` the
# model's at the same place: lists of probabilities by token. `p` has one entry more, for the token after the last draft.
#
# `draws` holds uniform numbers from 0 to 1, the only source of chance. Take them in order, one for each decision: first
# one for each draft that is looked at (accept when the number times *q(x)* is **less** than *p(x)*), then one to draw the
# last token, with `pick`. Return the round's new tokens.


# %% labs={"exercise": "sample_round"}
def pick(distribution, draw):
    """The token in whose part of 0 to 1 the draw lies."""
    total = 0.0
    for token, share in enumerate(distribution):
        total += share
        if draw < total:
            return token
    return max(token for token, share in enumerate(distribution) if share > 0)  # the sum was rounded to just below 1


def sample_round(drafted, q, p, draws):
    """Accepted drafts, and one more token."""
    ### BEGIN SOLUTION
    tokens = []
    for i, token in enumerate(drafted):
        if draws[i] * q[i][token] < p[i][token]:
            tokens.append(token)
            continue
        left = [max(0.0, wanted - offered) for wanted, offered in zip(p[i], q[i])]
        return [*tokens, pick([share / sum(left) for share in left], draws[i + 1])]
    return [*tokens, pick(p[len(drafted)], draws[len(drafted)])]
    ### END SOLUTION


lab.check("sample_round", sample_round)

# %% [markdown]
# Does it keep the distribution? Two real distributions over the eight tokens that the model finds likeliest at some place:
# the model's own, and the draft's, which errs. A small model is very sure of itself, so both are heated to temperature 3.
# Many rounds with one draft each. Beside it, a plausible mistake: a refused draft is replaced by a draw from *p* itself.

# %%
sample = sample_round if lab.solved("sample_round") else by_hand.sample_round
chance, ROUNDS = random.Random(335), lab.pick(quick=20_000, full=60_000)


def heated(shares, temperature=3.0):
    """The distribution at a temperature."""
    powers = [share ** (1 / temperature) for share in shares]
    return [power / sum(powers) for power in powers]


tokens, p, q = speculation.two_distributions(target, speculation.eagle3(target), UNKNOWN, top=8)
p, q = heated(p), heated(q)


def mistaken(drafted, q, p, draws):
    """As it should not be: what is refused is drawn anew from p."""
    accepted = draws[0] * q[0][drafted[0]] < p[0][drafted[0]]
    return [drafted[0]] if accepted else [pick(p[0], draws[1])]


def shares(rule):
    """How often each token comes out first."""
    counts = [0] * len(p)
    for _ in range(ROUNDS):
        (drafted,) = chance.choices(range(len(q)), q)
        counts[rule([drafted], [q], [p, p], [chance.random(), chance.random()])[0]] += 1
    return [count / ROUNDS for count in counts]


# %% [markdown]
# Read the columns against *target p*.

# %%
results = {"draft q": q, "target p": p, "rejection sampling": shares(sample), "mistaken": shares(mistaken)}
pd.DataFrame(results, index=workloads.pieces(tokens)).map("{:.1%}".format)

# %% [markdown]
# And as one number: half of the summed differences to *p* (the total variation distance). Of two samples of this size, from
# the same distribution, it is as large as the last line says.


# %%
def distance(found):
    """Total variation distance to the target's distribution."""
    return sum(abs(a - b) for a, b in zip(found, p)) / 2


results["drawn from p itself"] = shares(lambda drafted, q, p, draws: [pick(p[0], draws[0])])
pd.Series({name: f"{distance(found):.4f}" for name, found in results.items() if name != "target p"})

# %% [markdown]
# **What just happened?** Rejection sampling is as close to *p* as drawing from *p* itself. The mistake looks harmless and
# is not: tokens that the draft likes still come too often. Most speculation bugs are of this kind: the text reads well, and
# only a test of the distribution finds them. The share of drafts that are accepted is the overlap of the two
# distributions, the sum of min(*p*, *q*): a draft that imitates well is not a matter of quality, but of speed alone.
#
# There are faster rules that accept whatever is *typical* for the model (Medusa's typical acceptance). They change the
# distribution. That may be acceptable; it must be said.
#
# ## Part 3. How long a chain?
#
# A draft of the EAGLE kind can go on for as long as one likes. Each further place is reached only if all before it were
# accepted, and it costs another step of the draft.
#
# ### Exercise 2: expected length
#
# `rates[i]` is the share of rounds that accepted draft `i`, *of those that accepted all drafts before it*. Return the
# expected number of new tokens per round, the model's own token included.
#
# These are rates of *rounds*, each given the one before, so their product is exact. Two other kinds of figure look the
# same and are not. Engines count, of *all* rounds, those that accepted a place: there the product is already made. And
# the accuracy of a draft at all places of a text, multiplied up, usually promises too much, since rounds gather at the
# hard places (lab 3.3.4).


# %% labs={"exercise": "expected_length"}
def expected_length(rates):
    """New tokens per round of a chain with these acceptance rates."""
    ### BEGIN SOLUTION
    length, reached = 1.0, 1.0
    for rate in rates:
        reached *= rate
        length += reached
    return length
    ### END SOLUTION


lab.check("expected_length", expected_length)

# %% [markdown]
# The rates of a long chain, measured once, and the two costs of lab 3.3.4: what it costs to check *n* tokens, and what a
# round of drafting costs. Both as multiples of a plain step.

# %%
KINDS = ("seen-like", "slot-bearing", "off-domain")
N = lab.pick(quick=3, full=5)
drawn = {kind: prompts_by_class(kind, 2 * N, seed=335) for kind in KINDS}
asked = {kind: prompts[:N] for kind, prompts in drawn.items()}
everyone = [prompt for prompts in asked.values() for prompt in prompts]
rehearsal = [prompt for prompts in drawn.values() for prompt in prompts[N:]]

DEPTHS = (1, 3, 5, 7)
chains = {depth: speculation.eagle3(target, depth=depth) for depth in DEPTHS}
trial = speculation.acceptance(target, chains[7], rehearsal)
rates = trial.position_rates
plots.acceptance_by_position({"eagle3": rates}, rounds={"eagle3": trial.rounds})

# %% [markdown]
# The two costs, as multiples of a plain step, and the share of prefill in a plain answer, which nothing speeds up.

# %%
seconds = speculation.verify_costs(target, [1, *(depth + 1 for depth in DEPTHS)])
checking = {depth: seconds[depth + 1] / seconds[1] for depth in DEPTHS}
drafting = {depth: speculation.draft_cost(target, chain) / seconds[1] for depth, chain in chains.items()}
plain = [speculation.generate(target, chat_token_ids([("user", text)])) for text in rehearsal]
prefill = sum(answer.prefill_seconds for answer in plain) / sum(answer.seconds for answer in plain)

# %% [markdown]
# The prediction, before the measurement: how many tokens a round, at which cost, and which length is best?

# %%
length_of = expected_length if lab.solved("expected_length") else by_hand.expected_length
taus = {depth: length_of(rates[:depth]) for depth in DEPTHS}
predicted = {d: speculation.predicted_speedup(taus[d], checking[d], drafting[d], prefill) for d in DEPTHS}
best = max(predicted, key=predicted.get)
pd.DataFrame({"tokens a round": taus, "to check": checking, "to draft": drafting, "speedup": predicted}).rename_axis(
    "depth"
).round(2)

# %% [markdown]
# Measured, on other prompts, in turns with the plain loop.

# %%
PASSES = lab.pick(quick=3, full=4)
by_depth = {f"eagle3, depth {d}": chain for d, chain in chains.items()}
depth_of = dict(zip(by_depth, DEPTHS))
lab.record(speculation.measure(target, by_depth, everyone, passes=PASSES, workload="by depth"))

plots.speedup_curve(
    [(depth_of[m.method], m.model_copy(update={"method": "eagle3"})) for m in lab.measurements("speedup")],
    predicted=predicted.items(), x="Drafts in the chain",
)  # fmt: skip

# %% [markdown]
# **What just happened?** A chain gets better with its length until the next place no longer pays its own draft step and
# its own token to check. Rates that stay high to the last place are what training-time test is for; the comparison with
# the first EAGLE comes next.
#
# ## Part 4. Six ways to draft
#
# All in the same loop, on the same prompts, in turns:
#
# - *prompt lookup*: the last tokens are searched in the text so far, and what followed there is the draft. No model at
#   all;
# - *draft model*: a small Llama of its own, with the same tokenizer;
# - *Medusa*, with the tree of lab 3.3.4; *EAGLE*; *EAGLE-3*, as a chain of the length you predicted.
#
# Guess the order before you run it, for acceptance and for speed.

# %%
METHODS = {
    "prompt lookup": speculation.prompt_lookup(),
    "draft model": speculation.draft_model(target),
    "medusa": speculation.medusa(target),
    "eagle": speculation.eagle(target, depth=best),
    "eagle3": speculation.eagle3(target, depth=best),
}
by_kind = {
    kind: speculation.measure(target, METHODS, prompts, passes=PASSES, workload=kind) for kind, prompts in asked.items()
}
for found in by_kind.values():
    lab.record(found)

plots.speedups([m for m in lab.measurements("speedup") if m.load.workload in KINDS])

# %% [markdown]
# Every answer of every method, held against the plain one. Then acceptance, position by position: the shape of each line
# is the method.

# %%
same = lab.measurements("token_agreement")
assert all(m.value == 1.0 for m in same), [m for m in same if m.value != 1.0]
print(f"{sum(m.n for m in same)} answers with drafts, each token as in the answer without")

overall = replace(by_kind["seen-like"], answers=speculation.pooled(by_kind.values()), workload="all kinds")
lab.record(overall)
plots.acceptance_by_position(
    {name: overall[name].position_rates for name in METHODS}, rounds={name: overall[name].rounds for name in METHODS}
)

# %% [markdown]
# **What just happened?** Look at the bars kind by kind first. In *slot-bearing* text the next tokens stand in the prompt: a
# name, a port, a path. EAGLE and EAGLE-3 attend over the prompt and can look there; Medusa's heads see one hidden state
# and cannot, and prompt lookup does nothing else. On *seen-like* text, which the model recites, a good head needs no
# attention.
#
# Then the lines. A rate is taken only where all drafts before it were right, that is, in stretches that have proved easy;
# so a line may rise, for any method. Compare the methods with each other, place by place. EAGLE was trained for one step
# and lives on its own predicted features after that, so it loses ground from the second place on. EAGLE-3 was trained
# through its own steps, and loses less. That difference is what "training-time test" means.
#
# ## Part 5. Where the time goes
#
# Acceptance is half of the matter. The other half is the cost of a round, and it is not the same on every machine. Below,
# the milliseconds of one round of each method. Divide by its new tokens per round, and compare with the plain step.

# %%
plots.cost_breakdown(
    {"": overall["plain"].milliseconds} | {name: overall[name].milliseconds for name in METHODS},
    note="mean over all rounds of Part 4; other: accept, move the cache, Python",
)

# %% [markdown]
# **What just happened?** Medusa drafts everything in one small product; EAGLE-3 runs a layer once per place, one after the
# other. Here a draft step is about a twentieth of a model step, so that a chain of five adds a quarter to each round. On
# an 8B model, one layer is a 32nd of a step, and a GPU verifies longer chains for nothing. So the same acceptance buys
# less here than in the papers, and that is the reason, not the method. To say how EAGLE-3 does on *your* machine, you
# need both bars, not the acceptance alone.
#
# ## Part 6. On real engines
#
# vLLM and SGLang load the very same draft. Each runs twice: without speculation, which is the control, and with a chain of
# the length you predicted. First our own loop on the same prompts: its acceptance length is what both engines must reach.
# The layers that the draft reads are given by number, and the two engines count from different ends of a layer. Wrong ones
# neither fail nor slow anything visibly. They only cost acceptance, and nothing but this comparison shows it.

# %%
SERVED = everyone
exact = speculation.eagle3(target, depth=best, kind="fp32")  # as the engines hold it; above it was int8
ours = speculation.measure(target, {"eagle3": exact}, SERVED, passes=3, workload="served")
lab.record(ours)
print(f"our loop: {ours['eagle3'].acceptance_length:.2f} tokens per step")

# %% [markdown]
# The settings of the two engines for one and the same chain.

# %%
SPECULATE = {
    "vllm": vllm_config("eagle3", best, lab.precision),
    "sglang": sglang_config("EAGLE3", best, precision=lab.precision),
}
SAME = {"vllm": {"prefix_caching": False}, "sglang": {"radix_cache": False}}
{name: {key: value for key, value in given.items() if "model" not in key} for name, given in SPECULATE.items()}

# %% [markdown]
# One stream, several passes. Answers end where the model ends them.

# %%
ASK = {"chat": True, "output_tokens": 96, "ignore_eos": False, "workload": "served", "progress": False}
served = {}


async def measure_server(server, method):
    """Several passes over the prompts, one stream."""
    runs = served[server.engine.name, method] = []
    for i in range(3):
        runs.append(await bench.run(server, SERVED, concurrency=1, warmup=i == 0, **ASK))
        lab.record(runs[-1].measurements("completion_tokens", "output_throughput"))


for name, given in SPECULATE.items():
    for method, options in (("", {}), ("eagle3", {"speculative": given})):
        with lab.engine(name, **SAME[name], **options) as server:
            await measure_server(server, method)

# %% [markdown]
# Each engine counts its steps. Each request's first token comes from prefill, the others from steps.

# %%
STEPS = {"vllm": "vllm:spec_decode_num_drafts_total", "sglang": "sglang:spec_verify_calls_total"}


def accepted_by(run):
    """The engine's own tokens per step."""
    steps = run.engine_count(STEPS[run.engine])
    tokens = sum(sample.completion_tokens for sample in run.samples) - len(run.samples)
    return run.measurement("acceptance_length", tokens / steps, n=int(steps), method="eagle3")


def compare_servers(name):
    """Record an engine's speedup, its acceptance length, and how many answers are the same."""
    plain, fast = served[name, ""], served[name, "eagle3"]
    rates = (tuple(run.output_tokens_per_s for run in runs) for runs in (plain, fast))
    gain = bench.Comparison("output_throughput", ("plain", "eagle3"), *rates, fast[-1])
    same = [a.text == b.text for a, b in zip(plain[0].samples, fast[0].samples)]
    agreement = fast[0].measurement("token_agreement", sum(same) / len(same), n=len(same), method="eagle3")
    lab.record(gain.measurement(method="eagle3"), accepted_by(fast[0]), agreement)


for name in SPECULATE:
    compare_servers(name)

# %% [markdown]
# Speedup against the same engine without, acceptance against our loop, and whether the answers are the same.

# %%
COLUMNS = {"acceptance_length": "tokens a step", "speedup": "speedup", "token_agreement": "same answers"}
rows = {}
for m in lab.measurements(method="eagle3"):
    if m.load.workload == "served" and m.metric in COLUMNS:
        rows.setdefault(m.engine, {})[COLUMNS[m.metric]] = round(m.value, 2)
for name in SPECULATE:
    rows[name]["plain tokens/s"] = round(max(run.output_tokens_per_s for run in served[name, ""]))
rows["labs speculation"]["plain tokens/s"] = round(ours.measurement("output_throughput", "plain").value)
pd.DataFrame(rows).T

# %% [markdown]
# **What just happened?** Three implementations, one draft, and the acceptance agrees. The speedups do not: each is against
# its own plain decoding, and each pays its own price for a round. Our loop fuses the draft's step; vLLM runs the draft's
# layer five times through its general code; SGLang's kernels here are the course's own, in plain PyTorch, where many
# small operations cost much of what is saved. Acceptance carries over from one engine to the next, the cost of a round
# does not. Compare ratios only together with the rates they are ratios of.
#
# ## Part 7. Against the published tables
#
# One figure: everything that was measured on the same prompts, and below, apart, what the papers report for models a
# thousand times larger, on GPUs.

# %%
engines = [m for m in lab.measurements(method="eagle3") if m.engine in SPECULATE]
published = [m for m in references.SPECULATION if "-2" not in m.engine]
plots.methods_compared([*overall.measurements(), *engines], published)

# %% [markdown]
# **What just happened?** Hold the order of the acceptance lengths against the papers' first. It is a property of methods,
# text and training, so it carries over as far as those do: the papers' five tasks are chat, code and mathematics, and
# their drafts were trained on far more text than ours. Then the order of the *speedups*, which need not be that of the
# acceptance: it divides by the cost of a round, which on this machine is high for whatever drafts one token after the
# other. Where Medusa is level with EAGLE-3 in your figure, or ahead, Part 5 says why. The published 5.51x has a draft
# layer that costs a fortieth of the model, and verification that a GPU gives away.
#
# ## Part 8. When to use which
#
# From your own figures: the best method for each kind of text, and what the second best would cost you.

# %%
rows = {}
for kind, found in by_kind.items():
    ranked = sorted(METHODS, key=found.speedup, reverse=True)
    rows[kind] = {f"{i}.": f"{name} {found.speedup(name):.2f}" for i, name in enumerate(ranked, 1)}
pd.DataFrame(rows).T

# %% [markdown]
# | if | then |
# |---|---|
# | the answer repeats the prompt (editing, extraction, code completion) and nothing may be trained | prompt lookup, it costs nothing where it fails |
# | a small model with the same tokenizer exists and none for your target can be trained | draft model |
# | the draft must be cheap above all: a small model, a slow host, a CPU | Medusa |
# | the target is large and memory-bound, and an EAGLE-3 draft for it exists or can be trained | EAGLE-3 |
# | the server is full | none: see the batch sizes of lab 3.3.4 |
#
# ## Part 9. On a DGX Spark
#
# The same comparison with public drafts, as vLLM and SGLang take it: the arguments are those that the engines' own parsers
# accept; nothing was measured with them here. A Spark reads 273 GB/s, and an 8B model in FP8 has 8 GB: at most 34 tokens
# per second without speculation. With an acceptance length of 3 (the one published for Qwen3-8B in vLLM is 2.93) and a
# round that costs 1.2 plain steps, what do you expect?

# %%
for public in on_spark("eagle3"):
    print(public, end="\n\n")

# %% [markdown]
# ## Reflection
#
# Answer in a few sentences each; an instructor reads them.

# %% [markdown] labs={"question": "which-when"}
# **1. Your team serves a 70B model to 4 users at a time, and an 8B model to 200.** Which method for which, if any, and what
# would you measure before you decide?
#
# *Your answer:*
# <!-- ### BEGIN SOLUTION -->
#
# The 70B model with 4 users is memory-bound: a step reads all weights for four tokens, so checking five times as many costs
# little, and one draft layer is an eightieth of the model. EAGLE-3, if a draft for it exists, else train one; acceptance on
# our own prompts decides. The 8B model with 200 users is at a batch where verification is paid in full: probably none, or
# only when the load is low. Before deciding: verify ratio at the batch sizes that occur, acceptance length on logged
# prompts by kind, and output throughput and latency with and without, in turns, on the real traffic.
# <!-- ### END SOLUTION -->

# %% [markdown] labs={"question": "same-output"}
# **2. "Speculative decoding changes the answers."** A colleague has seen two different answers with temperature 0, with and
# without speculation, in bf16. Is the claim right? What would you check?
#
# *Your answer:*
# <!-- ### BEGIN SOLUTION -->
#
# In exact arithmetic it cannot change a greedy answer: a token is kept only where the model chose it. In bf16 a step over
# several tokens adds up its sums in another order than a step over one, so two tokens that are nearly level may change
# places, and from there the texts part. The same happens between batch sizes, without speculation. I would repeat it in
# fp32, where it should vanish; look at the gap between the two best logits at the first difference, which should be of
# the size of bf16's rounding; and with sampling test the distribution, not single answers. If fp32 differs too, or the gap
# is large, it is a bug: a wrong mask, wrong positions or a cache that was not compacted.
# <!-- ### END SOLUTION -->

# %% [markdown]
# ## Finish
#
# `lab.finish()` writes the result file and holds it against what this lab must have measured. It raises when something
# is missing.

# %%
lab.finish()
