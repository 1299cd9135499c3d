"""Training: stages from echoes and copying drills over the full mix to long contexts, seeded and resumable.

`labs model train` calls `train`; interrupt it with Ctrl-C or kill it and run it again to go on. `--from FOLDER` goes
on from a finished model with `LONG_STAGES`, which lengthen what it can look back over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b, file_digest
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import SPEC, Architecture
from labs_helpers.model.checkpoint import load_checkpoint, read_model, save_checkpoint, write_model
from labs_helpers.model.corpus import (
    COPY_MIX,
    ECHO_MIX,
    FULL_MIX,
    PAIRS_MIX,
    QUIZ_MIX,
    TRAINING_MIX,
    documents,
    long_documents,
)
from labs_helpers.model.corpus_slots import names
from labs_helpers.model.initial import new_model
from labs_helpers.model.optimizer import make_optimizers, set_rate
from labs_helpers.model.packing import PROMPT_WEIGHT, Batch, encode, long_batch, pack, packed_batch, with_gaps
from labs_helpers.model.parallel import Workers
from labs_helpers.model.tokenizer import (
    copy_tokenizer,
    fast_tokenizer,
    render_chat,
    require_tokenizer,
    save_tokenizer,
    train_tokenizer,
)

if TYPE_CHECKING:
    import torch

TOKENS_PER_STEP = 2560
CHECKPOINT_SECONDS = 90.0
WARMUP_STEPS = 20
TOKENIZER_DOCUMENTS = 12_000
TOKENIZER_NAMES = 30_000


@dataclass(frozen=True)
class Stage:
    """A part of the run, in rows of `width` tokens; every `long_every`-th step is two documents of `long_width`.

    `gaps` is the share of documents that get a jump in their positions; `prompt_weight` is the loss weight of a token
    that the model only reads, against 1 for one that it is to write; the learning rate moves linearly between the two
    shares of its peak in `rate`."""

    name: str
    mix: Mapping[str, float]
    steps: int
    rate: tuple[float, float] = (1.0, 1.0)
    width: int = 320
    gaps: float = 0.0
    prompt_weight: float = PROMPT_WEIGHT
    long_every: int = 0
    long_width: int = 0


STAGES = (
    Stage("echo", ECHO_MIX, 40),
    Stage("copying drills", COPY_MIX, 300, gaps=0.1),
    Stage("full mix", TRAINING_MIX, 1120, (1.0, 0.5), gaps=0.25, prompt_weight=0.02),
    Stage("full mix, slower", TRAINING_MIX, 640, (0.5, 0.4), gaps=0.25, prompt_weight=0.02),
    Stage("finding drills", PAIRS_MIX, 700, (0.4, 0.4), gaps=0.25, prompt_weight=0.02),
    Stage("question drills", QUIZ_MIX, 500, (0.4, 0.4), gaps=0.25, prompt_weight=0.02),
    Stage("full mix, slowest", TRAINING_MIX, 500, (0.4, 0.1), gaps=0.25, prompt_weight=0.02),
    Stage("long", TRAINING_MIX, 150, (0.1, 0.03), gaps=0.25, prompt_weight=0.02, long_every=3, long_width=2048),
    Stage("longest", TRAINING_MIX, 30, (0.03, 0.01), gaps=0.25, prompt_weight=0.02, long_every=3, long_width=4096),
)

LONG_STAGES = (
    Stage("rows of 1,024", TRAINING_MIX, 120, (0.3, 0.3), prompt_weight=0.02, long_every=1, long_width=1024),
    Stage("rows of 2,048", TRAINING_MIX, 260, (0.3, 0.15), prompt_weight=0.02, long_every=1, long_width=2048),
    Stage("rows of 3,072", TRAINING_MIX, 70, (0.15, 0.02), prompt_weight=0.02, long_every=1, long_width=3072),
    Stage("mostly short", TRAINING_MIX, 20, (0.02, 0.01), gaps=0.25, prompt_weight=0.02, long_every=4, long_width=4096),
)
"""A second run, of long rows only, from the weights of the first: `labs model train --from FOLDER`."""


@dataclass(frozen=True)
class TrainReport:
    """What a run did. Times include what an earlier, interrupted run of the same checkpoint spent."""

    folder: Path
    steps: int
    tokens: int
    seconds: float
    final_loss: float
    """Mean weighted training loss of the last 20 steps, nats per token."""
    tokens_per_second: float


def _build_tokenizer(seed: int, folder: Path, spec: Architecture) -> Any:
    texts = (render_chat(d.turns, generate=False) for d in islice(documents(seed, FULL_MIX), TOKENIZER_DOCUMENTS))
    tokenizer = train_tokenizer(texts, spec.vocabulary, islice(names(seed), TOKENIZER_NAMES))
    save_tokenizer(tokenizer, folder, spec.positions)
    fast_tokenizer.cache_clear()
    return fast_tokenizer(folder)


def batches(
    seed: int, stages: tuple[Stage, ...], tokenizer: Any, positions: int = SPEC.positions
) -> Iterator[tuple[str, Batch]]:
    """The whole run as a stream of (stage name, batch), the same for the same seed and stages.

    No position of a batch reaches `positions`.
    """
    for number, stage in enumerate(stages):
        part = seed * 100 + number
        encoded = partial(encode, tokenizer, prompt_weight=stage.prompt_weight)
        short = with_gaps(map(encoded, documents(part, stage.mix)), positions, stage.gaps, part)
        rows = pack(short, stage.width)
        longs = map(encoded, long_documents(part + 50, stage.mix, stage.long_width))
        for step in range(stage.steps):
            if stage.long_every and step % stage.long_every == 0:
                yield stage.name, long_batch([next(longs), next(longs)], stage.long_width)
            else:
                yield stage.name, packed_batch(list(islice(rows, TOKENS_PER_STEP // stage.width)), stage.width)


def rates(stages: tuple[Stage, ...]) -> list[float]:
    """The learning rate of every step, as a share of its peak; the first steps of all warm up."""
    shares = [a + (b - a) * (i + 1) / s.steps for s in stages for a, b in [s.rate] for i in range(s.steps)]
    return [share * min(1.0, (step + 1) / WARMUP_STEPS) for step, share in enumerate(shares)]


def weighted_loss(model: Any, batch: Batch, total_weight: float) -> torch.Tensor:
    """Cross entropy of the next token, weighted per token and divided by the whole batch's weight."""
    import torch
    from torch.nn import functional

    with torch.autocast("cpu", torch.bfloat16):
        logits = model(
            input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask, use_cache=False
        ).logits
    losses = functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none"
    )
    return (losses * batch.weights[:, 1:].flatten()).sum() / total_weight


def train(
    out: Path,
    *,
    seed: int = 0,
    scale: float = 1.0,
    resume: bool = True,
    threads: int | None = None,
    weights: Path | None = None,
    stages: tuple[Stage, ...] | None = None,
    spec: Architecture = SPEC,
    compiled: bool = True,
) -> TrainReport:
    """Train the course model and write it to `out` as bf16 safetensors with its tokenizer.

    `weights` is the folder of a finished model to go on from, with its tokenizer, instead of a new one; the stages are
    then `LONG_STAGES`. `scale` multiplies the steps of every stage (1 is the shipped recipe). The checkpoint
    `out/training.pt` is written every 90 seconds and removed at the end; with `resume` a run goes on from it.

    Raises:
        LabsError: the checkpoint belongs to another seed, scale or `weights`; `weights` holds no course model, or is
            `out`; or the folder cannot be written.
    """
    import torch

    starting = _starting_weights(weights, out, spec) if weights else None
    workers = threads or torch.get_num_threads()
    stages = stages or (LONG_STAGES if weights else STAGES)
    stages = tuple(replace(s, steps=max(1, round(s.steps * scale))) for s in stages)
    what = blake2b(repr(stages).encode(), digest_size=4).hexdigest()  # rates, mixes, everything
    recipe = f"seed {seed}, " + ", ".join(f"{s.name} {s.steps}x{s.width}" for s in stages) + f" [{what}]"
    if weights:
        recipe += f" from {_digest(weights / 'model.safetensors')}"
    path = out / "training.pt"
    state = load_checkpoint(path) if resume else None
    if state and state["recipe"] != recipe:
        advice = "use the same seed, scale and --from folder, or --fresh"
        raise LabsError(f"{path} belongs to another run ({state['recipe']})", advice)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = copy_tokenizer(weights, out) if weights else _build_tokenizer(seed, out, spec)
    model = new_model(seed, spec)
    if starting:
        model.load_state_dict(starting)
    optimizers = make_optimizers(model)
    start, spent, tokens, history = 0, 0.0, 0, []
    if state:
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start, spent, tokens, history = state["step"], state["seconds"], state["tokens"], state["losses"]
    network = model
    if compiled:
        torch._dynamo.config.recompile_limit = 32  # one network per row width, kind of attention and mask
        network = torch.compile(model, dynamic=False)
    shares = rates(stages)
    steps = len(shares)
    began = saved_at = time.monotonic()

    def snapshot(step: int) -> None:
        save_checkpoint(
            {
                "recipe": recipe,
                "step": step,
                "seconds": spent + time.monotonic() - began,
                "tokens": tokens,
                "losses": history,
                "model": model.state_dict(),
                "optimizers": [o.state_dict() for o in optimizers],
            },
            path,
        )

    parameters = list(model.parameters())
    with Workers(workers) as pool, _progress() as progress:
        task = progress.add_task("preparing", total=steps, completed=start)
        remaining = islice(batches(seed, stages, tokenizer, spec.positions), start, None)
        for step, (stage, batch) in enumerate(remaining, start):
            set_rate(optimizers, shares[step])
            # with a mask plain products beat the fused kernel on a CPU; without one the fused kernel skips half
            model.set_attn_implementation("sdpa" if batch.mask is None else "eager")
            history.append(pool.backward(partial(weighted_loss, network), batch, parameters))
            pool.step(optimizers)
            tokens += batch.ids.numel()
            progress.update(task, completed=step + 1, description=f"{stage}, loss {_recent(history):.3f}")
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                snapshot(step + 1)
                saved_at = time.monotonic()
    write_model(model.state_dict(), "bf16", out, spec)
    path.unlink(missing_ok=True)
    seconds = spent + time.monotonic() - began
    return TrainReport(out, steps, tokens, seconds, _recent(history), tokens / seconds)


def _starting_weights(folder: Path, out: Path, spec: Architecture) -> dict[str, torch.Tensor]:
    """The weights to go on from, read before anything is written."""
    if folder.resolve() == out.resolve():
        raise LabsError(f"--from and --out are both {folder}", "name another --out; what --from names stays as it is")
    tensors = read_model(folder, new_model(0, spec).state_dict())
    require_tokenizer(folder)
    return tensors


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=4)).hexdigest()


def _recent(history: list[float]) -> float:
    last = history[-20:]
    return sum(last) / len(last)


def _progress() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), refresh_per_second=1
    )
