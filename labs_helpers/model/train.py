"""Training: three stages from copying drills over the full mix to long contexts, seeded and resumable.

`labs model train` calls `train`; interrupt it with Ctrl-C or kill it and run it again to go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs_helpers.errors import LabsError
from labs_helpers.model.checkpoint import llama_config, load_checkpoint, save_checkpoint, write_model
from labs_helpers.model.corpus import COPY_MIX, FULL_MIX, documents, long_documents
from labs_helpers.model.optimizer import make_optimizers, rate, set_rate
from labs_helpers.model.packing import Batch, Encoded, encode, long_batch, pack, packed_batch
from labs_helpers.model.architecture import SPEC
from labs_helpers.model.tokenizer import fast_tokenizer, render_chat, save_tokenizer, train_tokenizer

if TYPE_CHECKING:
    import torch

TOKENS_PER_STEP = 4096
CHECKPOINT_SECONDS = 90.0
TOKENIZER_DOCUMENTS = 12_000


@dataclass(frozen=True)
class Stage:
    """A part of the run: `width` is the row length; every `long_every`-th step is one row of a long document."""

    name: str
    mix: Mapping[str, float]
    steps: int
    width: int
    long_every: int = 0


STAGES = (
    Stage("copying drills", COPY_MIX, 350, 256),
    Stage("full mix", FULL_MIX, 550, 512),
    Stage("long contexts", FULL_MIX, 300, 512, long_every=2),
)


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


def _build_tokenizer(seed: int, folder: Path) -> Any:
    texts = (render_chat(d.turns, generate=False) for d in islice(documents(seed, FULL_MIX), TOKENIZER_DOCUMENTS))
    save_tokenizer(train_tokenizer(texts, SPEC.vocabulary), folder, SPEC.positions)
    fast_tokenizer.cache_clear()
    return fast_tokenizer(folder)


def _encoded(seed: int, mix: Mapping[str, float], tokenizer: Any) -> Iterator[Encoded]:
    return (encode(tokenizer, d) for d in documents(seed, mix))


def batches(seed: int, stages: tuple[Stage, ...], tokenizer: Any) -> Iterator[tuple[str, Batch]]:
    """The whole run as a stream of (stage name, batch), the same for the same seed and stages."""
    for number, stage in enumerate(stages):
        rows = pack(_encoded(seed * 100 + number, stage.mix, tokenizer), stage.width)
        longs = (encode(tokenizer, d) for d in long_documents(seed * 100 + 50 + number, stage.mix, SPEC.positions))
        for step in range(stage.steps):
            if stage.long_every and step % stage.long_every == 0:
                yield stage.name, long_batch([next(longs)], SPEC.positions)
            else:
                yield stage.name, packed_batch(list(islice(rows, TOKENS_PER_STEP // stage.width)), stage.width)


def weighted_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Cross entropy of the next token, weighted per token and divided by the sum of the weights."""
    import torch
    from torch.nn import functional

    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask,
                       use_cache=False).logits
    losses = functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), batch.ids[:, 1:].flatten(),
                                      reduction="none")
    weights = batch.weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def new_model(seed: int) -> Any:
    """The untrained network, fp32. The residual branches start small, as in GPT-2."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**llama_config("fp32")))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.mul_((2 * SPEC.layers) ** -0.5)
    return model


def train(out: Path, *, seed: int = 0, scale: float = 1.0, resume: bool = True, threads: int | None = None,
          stages: tuple[Stage, ...] = STAGES, compiled: bool = True) -> TrainReport:
    """Train the course model and write it to `out` as bf16 safetensors with its tokenizer.

    `scale` multiplies the steps of every stage (1 is the shipped recipe). The checkpoint `out/training.pt` is
    written every 90 seconds and removed at the end; with `resume` a run goes on from it.

    Raises:
        LabsError: the checkpoint belongs to another seed or scale, or the folder cannot be written.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    stages = tuple(Stage(s.name, s.mix, max(1, round(s.steps * scale)), s.width, s.long_every) for s in stages)
    recipe = f"seed {seed}, " + ", ".join(f"{s.name} {s.steps}x{s.width}" for s in stages)
    path = out / "training.pt"
    state = load_checkpoint(path) if resume else None
    if state and state["recipe"] != recipe:
        raise LabsError(f"{path} belongs to another run ({state['recipe']})", "use the same seed and scale, or --fresh")
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = _build_tokenizer(seed, out)
    model = new_model(seed)
    optimizers = make_optimizers(model)
    start, spent, history = 0, 0.0, []
    if state:
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start, spent, history = state["step"], state["seconds"], state["losses"]
    network = torch.compile(model, dynamic=False) if compiled else model
    steps = sum(s.steps for s in stages)
    began = saved_at = time.monotonic()

    def snapshot(step: int) -> None:
        save_checkpoint({"recipe": recipe, "step": step, "seconds": spent + time.monotonic() - began,
                         "losses": history, "model": model.state_dict(),
                         "optimizers": [o.state_dict() for o in optimizers]}, path)

    with _progress() as progress:
        task = progress.add_task("preparing", total=steps, completed=start)
        for step, (stage, batch) in enumerate(islice(batches(seed, stages, tokenizer), start, None), start):
            set_rate(optimizers, rate(step, steps))
            loss = weighted_loss(network, batch)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            history.append(loss.item())
            progress.update(task, completed=step + 1, description=f"{stage}, loss {_recent(history):.3f}")
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                snapshot(step + 1)
                saved_at = time.monotonic()
    write_model(model.state_dict(), "bf16", out)
    path.unlink(missing_ok=True)
    seconds = spent + time.monotonic() - began
    tokens = steps * TOKENS_PER_STEP
    return TrainReport(out, steps, tokens, seconds, _recent(history), tokens / seconds)


def _recent(history: list[float]) -> float:
    last = history[-20:]
    return sum(last) / len(last)


def _progress() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                    refresh_per_second=1)
