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
# # Lab 3.3.4: Medusa
#
# *Module 3.3, Model Deployment & Inference Engines. About 2 hours with the exercises; the measurements alone take a few
# minutes.*
#
# To write one token, a model reads all of its weights. To *check* several tokens it reads them once as well. Decoding is
# bound by that reading, so checking four tokens costs little more than writing one. **Speculative decoding** lives from
# this: something cheap guesses the next tokens, the model checks all guesses in one step, and keeps those that it would
# have written itself. **Medusa** guesses with a few small heads on the model's own last hidden state. In this lab you
# will:
#
# 1. do one step by hand: guess, check, accept;
# 2. check a whole *tree* of guesses in one step, with the right attention mask;
# 3. train a head, and see what an untrained one is worth;
# 4. choose the tree, and *predict* acceptance and speedup before you measure them;
# 5. serve the same heads with vLLM, and find the batch size at which the gain dies.
#
# Nothing is lost on the way: with greedy decoding, every token is the one that the model would have written without. That
# is asserted below, for every method and every prompt.
#
# *"SGLang + Medusa".* Some overviews, this module's first outline among them, name that pair. It does not exist: SGLang
# has no Medusa (it has EAGLE, EAGLE-3, a draft model and n-grams). What exists is vLLM with Medusa, in this lab, and
# SGLang with EAGLE-3, in lab 3.3.5.
#
# **How to work.** Run the cells in order. Cells marked *Exercise* hold a function for you to write. The notebook runs
# through even when none is written. `lab.check(...)` answers at once.

# %% tags=["parameters"]
profile = "auto"  # or "cpu"
scale = "full"  # or "quick": fewer prompts and repeats
out = "results"  # folder of the result file

# %% [markdown]
# `Lab` says which engines can run here. This lab needs one, vLLM. Most of it runs in this notebook's own process, in a
# decode loop that the course wrote for speculation: the same lean loop with and without it, so that every ratio compares
# like with like.

# %%
import math

import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from labs_helpers import bench, plots, speculation
from labs_helpers.lab import Lab
from labs_helpers.model import workloads
from labs_helpers.model.prompts import chat_token_ids, prompts_by_class
from labs_helpers.model.spec import draft_dir
from labs_helpers.speculation import by_hand, features, rows, train_medusa
from labs_helpers.speculation.accuracy import ranks
from labs_helpers.speculation.medusa_heads import MedusaHeads
from labs_helpers.speculation.on_spark import on_spark
from labs_helpers.speculation.serving import vllm_config

lab = Lab("3.3.4", profile=profile, scale=scale, out=out)
target = speculation.Target.load(precision="fp32")

# %% [markdown]
# ## Part 1. One step by hand
#
# A question, and the first tokens of the model's own answer. This is what every method below must reproduce.

# %%
question = prompts_by_class("seen-like", 3, seed=340)[-1]
prompt = chat_token_ids([("user", question)])
plain = speculation.generate(target, prompt, max_new_tokens=24)
print(question, workloads.text(plain.ids), sep="\n")

# %% [markdown]
# The model reads the prompt. Its last hidden state gives the next token, through the model's own output head. Medusa puts
# further heads on the same state: the first guesses the token after the next, the second the one after that, and so on.
# Each is a single residual block and an output matrix; the model itself is frozen.
#
# Below, each head's three best guesses. The row *model* is certain, it is the token that will be written. Compare the
# other rows with what the model really writes. Which guesses are right, and where does the first one fail?

# %%
shipped = MedusaHeads.load(draft_dir("medusa"))
state = target.prefill(prompt)
with torch.inference_mode():
    guesses = [shipped.token_map[logits.topk(3).indices].tolist() for logits in shipped(state.hidden)]
said = {"model": [state.logits.argmax().item()]} | {f"head {i}": row for i, row in enumerate(guesses, 1)}
table = pd.DataFrame({name: pd.Series(workloads.pieces(row)) for name, row in said.items()}).T.fillna("")
table.columns = ["best guess", "second", "third"]
table.assign(written=workloads.pieces(plain.ids[: len(said)]))

# %% [markdown]
# ### Exercise 1: accept
#
# Drafts form a tree. Node 0 is its root: the last token that is already written. Every other node is a draft, and
# continues the text that ends with its parent. One step of the model gives, for *every* node, the token that the model
# itself would write after it.
#
# - `parents[i]` is the node before node `i`; `parents[0]` is -1. A parent always stands before its children.
# - `drafted[i]` is the token at node `i`.
# - `chosen[i]` is the token that the model chooses after node `i`.
#
# A draft is *right* when it is what the model chose after its parent, and its parent is right as well; the root is right.
# Return the nodes of the longest path of right drafts, from the root's child downwards, without the root. Of two paths of
# the same length, return the one whose last node comes first. A chain is a tree as well, so this covers it.


# %% labs={"exercise": "accept"}
def accept(parents, drafted, chosen):
    """Nodes of the longest path of right drafts, without the root."""
    ### BEGIN SOLUTION
    depth = {0: 0}  # of the right nodes
    best = 0
    for node in range(1, len(parents)):
        parent = parents[node]
        if parent in depth and drafted[node] == chosen[parent]:
            depth[node] = depth[parent] + 1
            if depth[node] > depth[best]:
                best = node
    path = []
    while best:
        path.append(best)
        best = parents[best]
    return path[::-1]
    ### END SOLUTION


lab.check("accept", accept)

# %% [markdown]
# Note what comes for free. After the last right draft the model has chosen a token of its own, and that one is always
# right. So every step yields at least one new token, as without speculation; and of a wrong draft nothing remains.
#
# ## Part 2. A tree in one step
#
# One chain of best guesses is fragile: one wrong link, and all after it is lost. A second guess for the first place
# costs one more token to check, and saves the step when the best guess was wrong. So Medusa checks a **tree**.
#
# All nodes go through the model together, as if they were a text. Two things make it right:
#
# - **The mask.** A node must see the prompt, its ancestors and itself; not its siblings, and not their children. To it,
#   they are texts that were never written.
# - **The positions.** A node's position is the root's plus its depth, so siblings share one.
#
# ### Exercise 2: the tree's mask
#
# `parents` as above. Return a list of rows: row `i`, column `j` is 1 where node `i` sees node `j`, else 0.


# %% labs={"exercise": "tree_mask"}
def tree_mask(parents):
    """Which nodes (columns) each node (row) sees."""
    ### BEGIN SOLUTION
    mask = []
    for node, parent in enumerate(parents):
        row = list(mask[parent]) if parent >= 0 else [0] * len(parents)
        row[node] = 1
        mask.append(row)
    return mask
    ### END SOLUTION


lab.check("tree_mask", tree_mask)

# %% [markdown]
# From here on, your functions are used where they pass, and the course's own where they do not.
#
# A tree of eight drafts, filled with the guesses above, is checked in one step. A path names a draft by the ranks of the
# guesses that lead to it: `[0, 1]` is head 1's best guess, then head 2's second.

# %%
take = accept if lab.solved("accept") else by_hand.accept
see = tree_mask if lab.solved("tree_mask") else by_hand.tree_mask

tree = speculation.Tree.from_paths([[0], [0, 0], [0, 0, 0], [1], [0, 1], [1, 0], [0, 0, 1], [2]])
drafted = said["model"] + [guesses[d - 1][rank] for d, rank in zip(tree.depths[1:], tree.ranks[1:])]
mask = see(list(tree.parents))

# %% [markdown]
# `verify` is one forward pass over all nine tokens. In the picture, the accepted path is green. Read the mask row by row,
# and find for each dark field why it is dark.

# %%
chosen = target.verify(state, drafted, tree.depths, mask).argmax(dim=-1).tolist()
path = take(list(tree.parents), drafted, chosen)
plots.token_tree(tree.parents, workloads.pieces(drafted), mask=mask, accepted=path)

# %% [markdown]
# The new tokens of this step are the accepted drafts and the model's own choice after the last of them.

# %%
new = [drafted[node] for node in path] + [chosen[path[-1] if path else 0]]
assert new == list(plain.ids[1 : 1 + len(new)]), "a step of speculation must write what the model writes"
print(f"{len(new)} tokens in one step: {workloads.text(new)!r}")

# %% [markdown]
# **What just happened?** The model read its weights once, and you got as many tokens as it says above. They are the same
# tokens, and that is no luck: a draft was kept only where the model had chosen it. What remains to be done in a real loop
# is bookkeeping: the keys and values of the rejected nodes are still in the cache and must be removed, and those of the
# accepted path moved together. `labs_helpers/speculation/tree.py` does that.

# %% [markdown]
# ## Part 3. Train a head
#
# Heads must be **trained**, for each model. What they learn from costs nothing: the model's own answers, and the hidden
# states that it had while it wrote them. Head *i* at place *t* must say the token at *t + 1 + i*. The model is not
# touched (the paper calls this Medusa-1), so its output cannot become worse, only faster.
#
# First the prompts. What is measured below, what the heads are examined on, and what they learn from are three sets that
# share nothing.

# %%
KINDS = ("seen-like", "slot-bearing", "off-domain")
N, EXAM = lab.pick(quick=4, full=8), lab.pick(quick=16, full=64)
drawn = {kind: prompts_by_class(kind, N if kind == "off-domain" else N + EXAM, seed=334) for kind in KINDS}
asked = {kind: prompts[:N] for kind, prompts in drawn.items()}
examined = [chat_token_ids([("user", text)]) for prompts in drawn.values() for text in prompts[N:]]
studied = [p for p in features.training_prompts(16 * EXAM) if len(p.ids) < 80][: 4 * EXAM]

# %% [markdown]
# Then the model's own greedy answers to them, with its hidden states. This is all that a head ever sees.

# %%
frozen = features.Frozen()
lessons = features.answer(frozen, studied, new_tokens=64)
exam = features.answer(frozen, [features.Prompt(tuple(ids)) for ids in examined], new_tokens=64)
print(f"{len(studied)} answers to learn from, {len(examined)} to be examined on")

# %% [markdown]
# Two heads, and a training loop of ten lines. A head starts as a copy of the model's own output head: untrained, it says
# what the model says, one place too early. The loss should fall within seconds.


# %%
def train(student, data, steps, rate=3e-3, batch=256):
    """Let each head predict its token at random places of the answers."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate)
    for step in range(steps):
        at = torch.randint(len(data.weights), (batch,))
        logits = student(data.features[at].float())
        loss = sum(cross_entropy(head, data.labels[at, i], ignore_index=-100) for i, head in enumerate(logits))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % (steps // 8) == 0:
            print(f"step {step:>4}: loss {loss.item() / len(logits):.2f} a head")


# %% [markdown]
# Seconds on two cores. The shipped heads had the same lesson, with more answers, for some minutes.

# %%
torch.manual_seed(334)
untrained, mine = (MedusaHeads(shipped.token_map, heads=2) for _ in range(2))
for student in (untrained, mine):
    student.start_from(frozen.embedding.float())
data = train_medusa.positions(lessons, shipped.token_map, 2, len(frozen.embedding))
train(mine, data, steps=lab.pick(quick=80, full=240))

# %% [markdown]
# The examination: at every place of answers that nobody has learned from, at which **rank** did each head have the token
# that came? Rank 0 is its best guess. The share of each rank is the head's *accuracy*, which we need for the tree below.


# %%
def accuracy_of(ranks):
    """For each head, the share of places where its best guess was right, its second, its third, its fourth."""
    return [[(head == rank).float().mean().item() for rank in range(4)] for head in ranks.T]


ranked = {name: ranks(heads, exam) for name, heads in
          (("untrained", untrained), ("trained here", mine), ("shipped", shipped))}  # fmt: skip
known = {name: accuracy_of(found) for name, found in ranked.items()}
pd.DataFrame(
    {name: {f"head {i}": f"{row[0]:.0%}" for i, row in enumerate(table, 1)} for name, table in known.items()}
).T.fillna("")

# %% [markdown]
# **What just happened?** An untrained head is right about as often as a text repeats its last token. Seconds of training
# make it useful, minutes make it good. The second head is harder than the first: it must say a token without knowing the
# one before it. That is Medusa's limit, and what EAGLE changes in lab 3.3.5.
#
# ## Part 4. Which tree?
#
# Every node is one more token to check, so nodes are a budget. Which ones are worth it? A draft counts only if *all*
# before it are right. If we pretend that heads are right or wrong independently of each other, a path's chance is the
# product of its guesses' accuracies, and the drafts accepted per step are on average the **sum of that over all nodes**.
#
# ### Exercise 3: choose a tree
#
# `accuracy[d][r]` is the share of places where guess `r` of head `d` was right (both from 0). A path is a list of ranks,
# one for each head it goes through: `[0]`, or `[0, 1]`. Return the `nodes` paths with the largest sum of chances, in any
# order, such that it is a tree: a path of several ranks needs the path without its last rank. If there are fewer possible
# paths than `nodes`, return them all. (Hint: a path is never worth more than its parent.)


# %% labs={"exercise": "choose_tree"}
def choose_tree(accuracy, nodes):
    """The paths of ranks of the best tree with so many drafts."""
    ### BEGIN SOLUTION
    chosen = []
    open_paths = [(accuracy[0][rank], [rank]) for rank in range(len(accuracy[0]))]
    while open_paths and len(chosen) < nodes:
        value, path = max(open_paths)
        open_paths.remove((value, path))
        chosen.append(path)
        if len(path) < len(accuracy):
            open_paths += [(value * share, [*path, rank]) for rank, share in enumerate(accuracy[len(path)])]
    return chosen
    ### END SOLUTION


lab.check("choose_tree", choose_tree)

# %% [markdown]
# The tree of eleven drafts for the shipped heads, with the chance of each path. Is it broad, or is it deep?

# %%
choose = choose_tree if lab.solved("choose_tree") else by_hand.choose_tree
accuracy = known["shipped"]
PATHS = {nodes: choose(accuracy, nodes) for nodes in (2, 5, 8, 11, 17)}
TREES = {nodes: speculation.Tree.from_paths(paths) for nodes, paths in PATHS.items()}


def chance(path):
    """The product of the accuracies along a path."""
    return math.prod(accuracy[head][rank] for head, rank in enumerate(path))


tree, paths = TREES[11], sorted(PATHS[11], key=lambda path: (len(path), path))
names = ["last token", *(f"head {len(path)}, #{path[-1] + 1}" for path in paths)]
plots.token_tree(tree.parents, names, notes=["", *(f"{chance(path):.2f}" for path in paths)])

# %% [markdown]
# ### Exercise 4: walk the text
#
# The sum of products makes two mistakes. It takes the heads for independent; but text is easy or hard in stretches, and
# where one head is right, the next one probably is too. That alone would make the sum too low. And it averages over all
# *places*, while a round does not begin at every place: where drafts are right, a round jumps over the places that it
# covers; where they are wrong, every token needs a round of its own. So rounds gather where it is hard, and that makes
# the sum too high, often by more.
#
# To walk makes neither mistake. `matches` is a list of answers; an answer is a list with a number for each of its tokens: how
# many drafts would be accepted by a round that begins there. A round that begins at `t` writes `1 + answer[t]` tokens, and
# the next one begins after them. The first round begins at 0, and every answer begins anew. What a round drafts past the
# end of an answer is not counted. Return the number of tokens over the number of rounds, over all answers together.


# %% labs={"exercise": "walk"}
def walk(matches):
    """Tokens per round over all answers."""
    ### BEGIN SOLUTION
    rounds = 0
    for answer in matches:
        t = 0
        while t < len(answer):
            t += 1 + answer[t]
            rounds += 1
    return sum(map(len, matches)) / rounds
    ### END SOLUTION


lab.check("walk", walk)

# %% [markdown]
# Both predictions, for every tree. How many drafts a tree would have accepted at a place follows from the ranks: the
# longest path of the tree that begins as they do.

# %%
stroll = walk if lab.solved("walk") else by_hand.walk


def matched(place, paths):
    """How many drafts of a tree with these paths are right where the heads had their tokens at these ranks."""
    return max((len(path) for path in paths if path == place[: len(path)]), default=0)


answers = [answer.tolist() for answer in ranked["shipped"].split([span.anchors for span in rows.spans(exam)])]
summed, walked = {}, {}
for nodes, paths in PATHS.items():
    summed[nodes] = 1 + sum(map(chance, paths))
    walked[nodes] = stroll([[matched(place, paths) for place in answer] for answer in answers])
pd.DataFrame({"sum of products": summed, "walked": walked}).rename_axis("drafts").round(2)

# %% [markdown]
# ## Part 5. The cost, before the gain
#
# The **acceptance length** tau is the number of new tokens per step of the model. It is no speedup yet. A step over many
# tokens costs more than one over a single token (the *verify ratio*), and the heads cost something too:
#
# $$\text{speedup} = \frac{\tau}{\text{verify ratio} + \text{draft cost}}$$
#
# both costs as multiples of a plain step. First the verify ratio, measured on this machine. Where does the line leave 1?
# On a GPU it stays flat for much longer: there, hundreds of multiplications are free for each byte that is read.

# %%
SIZES = (1, 2, 3, 6, 9, 12, 18, 32, 64, 128)
seconds = speculation.verify_costs(target, SIZES)
ratio = {size: seconds[size] / seconds[1] for size in SIZES}
pd.DataFrame({"ms": {m: 1e3 * s for m, s in seconds.items()}, "ratio": ratio}).rename_axis("tokens checked").round(2)

# %% [markdown]
# The line has steps: the matrix product works on blocks of rows, and a block that is only half full costs as much as a
# full one. That is worth knowing when the size of a tree is chosen.
#
# One thing more. Prefill is part of every answer and is not sped up, so the share of time that it takes dilutes the gain
# (Amdahl's law). `predicted_speedup` takes it into account.

# %%
trial = [speculation.generate(target, ids) for ids in examined[::4]]
prefill = sum(answer.prefill_seconds for answer in trial) / sum(answer.seconds for answer in trial)
drafting = speculation.draft_cost(target, speculation.medusa(target, tree=TREES[5])) / seconds[1]
print(f"prefill is {prefill:.0%} of a plain answer; the heads cost {drafting:.2f} of a plain step per round")

# %% [markdown]
# The prediction for each tree, written down before anything is measured.

# %%
predicted = {
    nodes: speculation.predicted_speedup(walked[nodes], ratio[nodes + 1], drafting, prefill) for nodes in TREES
}
best = max(predicted, key=predicted.get)
print(f"the best tree should be the one of {best} drafts:", {n: round(value, 2) for n, value in predicted.items()})

# %% [markdown]
# ## Part 6. Measure
#
# Every measurement below takes turns: all methods answer the same prompts, one after the other, several times over, and
# the speedup is the ratio to the plain loop with the spread of those passes. Prefill is included: it is what a user waits
# for. First the trees, on prompts of the kinds that the heads have learned from.

# %%
PASSES = lab.pick(quick=3, full=5)
familiar = asked["seen-like"] + asked["slot-bearing"]

by_tree = {f"medusa, {n} drafts": speculation.medusa(target, tree=tree) for n, tree in TREES.items()}
lab.record(speculation.measure(target, by_tree, familiar, passes=PASSES, workload="by tree"))

# %% [markdown]
# Measured on the predicted line?

# %%
size_of = dict(zip(by_tree, TREES))
measured = [m for m in lab.measurements("speedup") if m.load.workload == "by tree"]
plots.speedup_curve(
    [(size_of[m.method], m.model_copy(update={"method": "medusa"})) for m in measured],
    predicted=predicted.items(), x="Drafts in the tree",
)  # fmt: skip

# %% [markdown]
# And the acceptance length, against both predictions.

# %%
found = {size_of[m.method]: m.value for m in lab.measurements("acceptance_length") if m.method in size_of}
pd.DataFrame({"sum of products": summed, "walked": walked, "measured": found}).rename_axis("drafts").round(2)

# %% [markdown]
# **What just happened?** Acceptance only ever grows with the tree, and the speedup does not: from some size on, a node
# costs more to check than it brings. Neither prediction is exact: the answers that were walked end after 64 tokens and are
# not those that were measured, and there are few of both. But what a prediction is for is the choice. Is the tree that
# was predicted to be the best one the best?
#
# ### By kind of text
#
# *Seen-like* prompts ask for what the model explains in its own words of training; *slot-bearing* ones hold names and
# numbers that must be copied; *off-domain* ones are about bread and birds, of which the model knows nothing. Three
# drafters: the untrained heads, those you trained, the shipped ones.

# %%
drafters = {
    "medusa, untrained": speculation.medusa(target, heads=untrained, nodes=2),
    "medusa, trained here": speculation.medusa(target, heads=mine, nodes=2),
    "medusa": speculation.medusa(target, tree=TREES[best]),
}
by_kind = {
    kind: speculation.measure(target, drafters, prompts, passes=PASSES, workload=kind)
    for kind, prompts in asked.items()
}
for found in by_kind.values():
    lab.record(found)

plots.speedups([m for m in lab.measurements("speedup") if m.load.workload in KINDS])

# %% [markdown]
# Acceptance at each position: of the rounds in which everything before was right, how often was this draft right too?

# %%
plots.acceptance_by_position(
    {kind: found["medusa"].position_rates for kind, found in by_kind.items()},
    rounds={kind: found["medusa"].rounds for kind, found in by_kind.items()},
)

# %% [markdown]
# **What just happened?** Untrained heads only cost: every wrong draft is checked all the same. Trained ones
# gain where the text is predictable. Nothing in the method knows what kind of text it writes; what differs is only how
# surprising the next tokens are. A speedup without the text it was measured on says as little as a throughput without its
# load.
#
# And all of it wrote the same tokens. `measure` compares every answer with the plain one; this is the count.

# %%
same = lab.measurements("token_agreement")
assert all(m.value == 1.0 for m in same), [m for m in same if m.value != 1.0]
print(f"{sum(m.n for m in same)} answers with drafts, each token as in the answer without")

# %% [markdown]
# ### By output length
#
# Prefill is not sped up. So the shorter the answer, the larger the part of the time that speculation cannot touch.

# %%
by_length = []
for length in lab.pick(quick=(8, 32, 96), full=(8, 16, 32, 64, 96)):
    found = speculation.measure(
        target, {"medusa": drafters["medusa"]}, familiar, passes=PASSES, max_new_tokens=length, workload="by length"
    )
    lab.record(found)
    by_length.append((length, found.measurement("speedup", "medusa")))

plots.speedup_curve(by_length, x="Most tokens of an answer")

# %% [markdown]
# ## Part 7. The same heads in vLLM
#
# vLLM loads these heads with its `medusa` method. One difference: it proposes a chain of best guesses, no tree. So our own
# loop runs a chain too, on the same prompts, for comparison of the acceptance. And it holds the heads in fp32, as vLLM
# does; above they were int8, which drafts as well and costs less. (Rounding a draft changes no text, only acceptance.)
#
# A server has other users. With *b* streams, a plain step already computes *b* tokens, and verification computes *b*
# times the drafts. From the costs of Part 5 follows a prediction for any batch, before a server is started.

# %%
SERVED = [prompt for prompts in asked.values() for prompt in prompts]
chain = speculation.medusa(target, tree=speculation.Tree.chain(shipped.heads), kind="fp32")
ours = speculation.measure(target, {"medusa": chain}, SERVED, passes=1, workload="served")
lab.record(ours)
tau = ours["medusa"].acceptance_length

# %% [markdown]
# With *b* streams a plain step has *b* rows, and a step that checks has *b* times the drafts and one.

# %%
BATCHES = (1, 8, 16)


def at_batch(b):
    """Predicted speedup when b streams are decoded together, from the verify costs."""
    plain, checked = (speculation.interpolate(seconds, rows) for rows in (b, b * (shipped.heads + 1)))
    return speculation.predicted_speedup(tau, checked / plain, drafting * seconds[1] / plain)


forecast = {b: at_batch(b) for b in BATCHES}
print({b: round(value, 2) for b, value in forecast.items()})

# %% [markdown]
# Two servers, one after the other: without speculation and with it. The prompts are the same, several passes each, at one,
# eight and sixteen streams. Answers end where the model ends them: what it would write after its end is noise, and noise
# cannot be drafted. The prefix cache is off, since the same prompts come again.

# %%
served = {"plain": {}, "medusa": {}}


async def measure_server(server, name):
    """Several passes over the prompts at each number of streams."""
    for streams in BATCHES:
        work = SERVED if streams == 1 else SERVED * 2
        runs = served[name][streams] = []
        for i in range(3):
            runs.append(await bench.run(server, work, concurrency=streams, warmup=i == 0, **ASK))
            lab.record(runs[-1].measurements("completion_tokens"))


ASK = {"chat": True, "output_tokens": 96, "ignore_eos": False, "workload": "served", "progress": False}
for name, options in (("plain", {}), ("medusa", {"speculative": vllm_config("medusa", precision=lab.precision)})):
    with lab.engine("vllm", prefix_caching=False, **options) as server:
        await measure_server(server, name)

# %% [markdown]
# The engine counts its drafts. Each request's first token comes from prefill, all others from steps; so its acceptance
# length is *(tokens - requests) / steps*. It must be that of our own loop: heads that read the wrong hidden state would
# still draft and still be corrected, only slowly, and nothing but this figure would show it.

# %%
run = served["medusa"][1][0]
tokens = sum(sample.completion_tokens for sample in run.samples) - len(run.samples)
steps = run.engine_count("vllm:spec_decode_num_drafts_total")
lab.record(run.measurement("acceptance_length", tokens / steps, n=int(steps), method="medusa"))
print(f"tokens per step: vLLM {tokens / steps:.2f}, our loop {tau:.2f}")

# %% [markdown]
# Is every answer the same? And how many times as many tokens per second?


# %%
def compare_servers(streams):
    """Record the speedup at so many streams, and how many answers are the same."""
    plain, fast = served["plain"][streams], served["medusa"][streams]
    rates = (tuple(run.output_tokens_per_s for run in runs) for runs in (plain, fast))
    gain = bench.Comparison("output_throughput", ("plain", "medusa"), *rates, fast[-1])
    same = [a.text == b.text for a, b in zip(plain[0].samples, fast[0].samples)]
    agreement = fast[0].measurement("token_agreement", sum(same) / len(same), n=len(same), method="medusa")
    lab.record(gain.measurement(method="medusa"), agreement)
    print(f"{streams:>2} streams: {gain.speedup:.2f} times the tokens per second, {sum(same)} of {len(same)} the same")


for streams in BATCHES:
    compare_servers(streams)

plots.speedup_curve(
    [(m.load.concurrency, m) for m in lab.measurements("speedup", engine="vllm")],
    predicted=forecast.items(), x="Streams at once (batch)", title="vLLM: what a batch leaves of the gain",
)  # fmt: skip

# %% [markdown]
# **What just happened?** At one stream, the weights are read for one token or for a handful, at nearly the same price. At
# sixteen, a plain step already does sixteen times the arithmetic for that reading, and every draft is arithmetic *on top*:
# verification has stopped being free. On a GPU this point lies at larger batches, but it is there. So speculation is for
# the machine that has arithmetic to spare: few users, or short queues. It buys latency with arithmetic, and a full server
# has none to sell.
#
# Where is the prediction off? It knows only the steps of our lean loop. A server also has prefill, HTTP and a proposer in
# Python, which pull the left end down; and each of its steps has a fixed part, the scheduler and the sampler, of which
# speculation needs fewer, which lifts the right end. The direction was predicted, and roughly the place where the gain is
# gone, before a server was started.
#
# ## Part 8. On a DGX Spark
#
# With a public head and model, the same in vLLM's container. The course's machine for this notebook runs no container, so
# these are the arguments, as vLLM's own parser accepts them, without a measurement. Medusa heads are made for one model:
# a head for Vicuna drafts nothing useful for Llama.

# %%
for public in on_spark("medusa"):
    print(public, end="\n\n")

# %% [markdown]
# ## Reflection
#
# Answer in a few sentences each; an instructor reads them.

# %% [markdown] labs={"question": "deeper"}
# **1. Would a sixth head, or a tenth, help?** Use your figures: acceptance by position, verify ratio, draft cost.
#
# *Your answer:*
# <!-- ### BEGIN SOLUTION -->
#
# A further head adds, to the acceptance length, the chance that all drafts before it *and* its own are right. With each
# position accepted in 80 to 90 percent of the rounds that reach it, the sixth adds about 0.8^6, a quarter of a token, the
# tenth a tenth. Against that stands one more token to check in *every* round, which on this machine costs some hundredths
# of a step, and the head's own cost. So it helps as long as the added chance, over the current acceptance length, is
# larger than the added cost over the current cost of a round. On predictable text that holds for longer than on free
# text. And later heads are worse, not only rarer: each must say a token without knowing those in between.
# <!-- ### END SOLUTION -->

# %% [markdown] labs={"question": "busy-server"}
# **2. A server runs with 2 to 40 streams over the day.** When should it speculate, and how would you find the limit?
#
# *Your answer:*
# <!-- ### BEGIN SOLUTION -->
#
# I would measure output throughput with and without speculation at several numbers of streams, on the traffic's own
# prompts, in turns, and find where the ratio falls below 1 (or below what makes it worth the memory). The limit depends
# on acceptance, so it must be watched: engines count drafts and accepted drafts. Below the limit speculate, above it draft
# less or not at all; vLLM and SGLang can be told to change the number of drafts with the load, or two servers with and
# without stand behind a router. For interactive users, the latency at few streams matters most, and that is where the
# gain is.
# <!-- ### END SOLUTION -->

# %% [markdown]
# ## Finish
#
# `lab.finish()` writes the result file and holds it against what this lab must have measured. It raises when something
# is missing.

# %%
lab.finish()
