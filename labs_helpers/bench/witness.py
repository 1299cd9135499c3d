"""The engine's own figure for what the client measured: from its counters, or from timings in its answers.

Totals must agree. Rates are seen from inside: no network, no queue, and where they come from counters a mean over all
tokens, while the client's are medians over requests; they agree when the load is even and the machine is quiet.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence

from labs_helpers.bench.sample import Sample
from labs_helpers.engines.base import Counters
from labs_helpers.errors import LabsError

Read = Callable[[], Awaitable[Counters]]


async def settled(read: Read | None, *, patience_s: float = 3.0, pause_s: float = 0.1) -> Counters | None:
    """The counters once they stand still: engines add the last step after they have sent its tokens.

    None when the engine has no counters or does not answer.
    """
    if read is None:
        return None
    try:
        now = await read()
        for _ in range(int(patience_s / pause_s)):
            await asyncio.sleep(pause_s)
            before, now = now, await read()
            if (now.generation_tokens, now.requests) == (before.generation_tokens, before.requests):
                break
        return now
    except LabsError:
        return None


def figure(metric: str, samples: Sequence[Sample], counters: Counters | None, duration_s: float) -> float | None:
    """The engine's own value of `metric` in the metric's unit, or None where it does not say."""
    counters = counters or Counters()
    match metric:
        case "completion_tokens":
            return counters.generation_tokens
        case "prompt_tokens":
            return counters.prompt_tokens
        case "cached_tokens":
            return counters.cached_tokens
        case "cache_hit_rate":
            return _ratio(counters.cached_tokens, counters.prompt_tokens)
        case "output_throughput":
            return _ratio(counters.generation_tokens, duration_s)
        case "request_throughput":
            return _ratio(counters.requests, duration_s)
        case "prefill_throughput":
            return _median(samples, _prefill_rate) or _ratio(_uncached(counters), counters.prefill_seconds)
        case "decode_throughput":
            return _median(samples, _decode_rate) or _ratio(_decoded(counters, len(samples)), counters.decode_seconds)
        case "tpot":
            rate = figure("decode_throughput", samples, counters, duration_s)
            return 1e3 / rate if rate else None
    return None


def _decode_rate(timings: Mapping[str, float]) -> float | None:
    """Tokens per second: llama.cpp names the rate, Ollama a count's duration in ns."""
    return timings.get("predicted_per_second") or _ratio(timings.get("eval_count"), timings.get("eval_duration"), 1e9)


def _prefill_rate(timings: Mapping[str, float]) -> float | None:
    return timings.get("prompt_per_second") or _ratio(
        timings.get("prompt_eval_count"), timings.get("prompt_eval_duration"), 1e9
    )


def _uncached(counters: Counters) -> float | None:
    return None if counters.prompt_tokens is None else counters.prompt_tokens - (counters.cached_tokens or 0)


def _decoded(counters: Counters, requests: int) -> float | None:
    """Generated tokens less the first of each request, which prefill brought."""
    if counters.generation_tokens is None:
        return None
    return counters.generation_tokens - (requests if counters.requests is None else counters.requests)


def _median(samples: Sequence[Sample], rate: Callable[[Mapping[str, float]], float | None]) -> float | None:
    rates = [r for s in samples if (r := rate(s.timings))]
    return statistics.median(rates) if rates else None


def _ratio(amount: float | None, over: float | None, scale: float = 1.0) -> float | None:
    return scale * amount / over if amount and over else None
