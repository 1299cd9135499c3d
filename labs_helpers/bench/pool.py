"""What vLLM says about its KV pool, and about a text it is given: the figures behind a KV cache type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from labs_helpers.engines.base import Server
from labs_helpers.errors import LabsError

CONFIG = "vllm:cache_config_info{"


@dataclass(frozen=True)
class KVPool:
    """The KV cache of a running server, by its own account."""

    blocks: int
    """All of them; vLLM keeps one for itself."""
    block_size: int
    """Tokens of a block."""
    bytes: int
    dtype: str

    @property
    def tokens(self) -> int:
        return self.blocks * self.block_size

    @property
    def bytes_per_token(self) -> float:
        """The pool divided among its tokens; what is left of the last block counts as well."""
        return self.bytes / self.tokens


async def kv_pool(server: Server) -> KVPool:
    """Read the pool from the server's metrics page (`vllm:cache_config_info`).

    Raises:
        LabsError: the server does not answer, or does not say.
    """
    raw = (await server.counters()).raw
    labels = next((name for name in raw if name.startswith(CONFIG)), "")
    found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
    try:
        return KVPool(
            blocks=int(found["num_gpu_blocks"]),
            block_size=int(found["block_size"]),
            bytes=int(found["kv_cache_memory_bytes"]),
            dtype=found["cache_dtype"],
        )
    except (KeyError, ValueError):
        raise LabsError(
            f"{server.engine.title} does not say how large its KV pool is", "only vLLM shows it on its metrics page"
        ) from None


@dataclass(frozen=True)
class Scored:
    """A text under a server's model, every token given the true ones before it."""

    losses: tuple[float, ...]
    """Nats of each token after the first."""
    choices: tuple[int, ...]
    """The token that the model would have taken instead, or the same."""


async def score_text(server: Server, ids: Sequence[int]) -> Scored:
    """Let the server read a text and say how likely each of its tokens was (vLLM's `prompt_logprobs`).

    Raises:
        LabsError: it does not answer, or not in this form.
    """
    body = {
        "model": server.model.name, "prompt": list(ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1,
    }  # fmt: skip
    url = server.base_url + "/v1/completions"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session,
            session.post(url, json=body) as answer,
        ):
            told: dict[str, Any] = await answer.json()
        rows = told["choices"][0]["prompt_logprobs"][1:]
        losses = tuple(-float(row[str(token)]["logprob"]) for row, token in zip(rows, ids[1:], strict=True))
        choices = tuple(int(next(token for token, seen in row.items() if seen["rank"] == 1)) for row in rows)
    except (aiohttp.ClientError, TimeoutError, KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
        raise LabsError(
            f"{url} did not score a text of {len(ids)} tokens: {type(error).__name__} {error}",
            "the engine may have died: look at its log",
        ) from error
    return Scored(losses, choices)
