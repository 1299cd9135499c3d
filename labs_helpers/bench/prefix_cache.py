"""What a prefix cache should do with a trace: predicted from the tokens alone, to be held against the engine.

Both engines follow one rule. After a request its prompt is cached, and of its output all but the last token, whose KV
entry was never computed. A later prompt takes what it shares with anything cached, in whole pages, but never all of
it: its last token must be computed, or there would be nothing to choose the next one from. (SGLang:
`Req._compute_max_prefix_len`, `release_kv_cache`; vLLM: design docs, "Automatic Prefix Caching".)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, Protocol

from labs_helpers.errors import LabsError

if TYPE_CHECKING:
    from labs_helpers.bench.report import Run
    from labs_helpers.results import Measurement

Tokens = Sequence[int]
Served = tuple[Tokens, Tokens]
"""A prompt and the output it got; the output may be empty where no later prompt continues it."""


class Tree(Protocol):
    """What `simulate` needs of a radix tree, over pages."""

    def match(self, tokens: Sequence[Any]) -> int: ...
    def insert(self, tokens: Sequence[Any]) -> int: ...
    def lock(self, tokens: Sequence[Any]) -> int: ...
    def unlock(self, tokens: Sequence[Any]) -> int: ...
    def evict(self, wanted: int) -> int: ...


def predict_cached(trace: Iterable[Served], page_size: int = 1) -> list[int]:
    """Cached prompt tokens of each request, one served after the other by a cache that never fills up.

    Args:
        trace: prompts with their outputs, in order of service.
        page_size: tokens of a page (SGLang) or block (vLLM).
    """
    known: dict[tuple[int, tuple[int, ...]], int] = {}  # a page after a given path -> the path that ends with it
    cached = []
    for prompt, output in trace:
        path, hit = 0, 0
        for page in pages(prompt[:-1], page_size):
            if (path, page) not in known:
                break
            path = known[path, page]
            hit += page_size
        cached.append(hit)
        path = 0
        for page in pages([*prompt, *output[:-1]], page_size):
            path = known.setdefault((path, page), len(known) + 1)
    return cached


def simulate(tree: Tree, trace: Iterable[Served], capacity: int, page_size: int = 1) -> list[int]:
    """Cached prompt tokens of each request for a cache of `capacity` tokens that evicts what was used longest ago.

    Follows SGLang, one request at a time: match; lock what matched, evict what the rest of the prompt needs and insert
    it; the same again for the output. Hits are counted by the first match only.

    Args:
        tree: empty; a tree over pages with the methods of `RadixTree`.

    Raises:
        LabsError: one request alone needs more than the cache has.
    """
    room = capacity // page_size
    held, cached = 0, []
    for prompt, output in trace:
        cached.append(page_size * tree.match(pages(prompt[:-1], page_size)))
        for tokens in (pages(prompt, page_size), pages([*prompt, *output[:-1]], page_size)):
            kept = tree.lock(tokens)
            missing = held + len(tokens) - kept - room
            held -= tree.evict(missing) if missing > 0 else 0
            if held + len(tokens) - kept > room:
                raise LabsError(
                    f"a request of {len(prompt) + len(output)} tokens does not fit into a cache of {capacity}",
                    "simulate a larger cache or shorter requests",
                )
            held += tree.insert(tokens)
            tree.unlock(tokens[:kept])
    return cached


def prediction_error(run: Run, predicted: Sequence[int], page_size: int = 1) -> Measurement:
    """How far the engine's cached tokens were from the predicted ones, in pages, at the request furthest off.

    Raises:
        LabsError: not one prediction per request, a request failed, or the engine does not say what was cached.
    """
    measured = [sample.cached_tokens for sample in run.samples if sample.error is None]
    if not len(measured) == len(run.samples) == len(predicted):
        raise LabsError(
            f"{len(predicted)} predictions for {len(run.samples)} requests, {len(measured)} of them answered",
            "predict each request of the run, in its order",
        )
    apart = [abs(said - told) for said, told in zip(predicted, measured, strict=True) if told is not None]
    if len(apart) < len(measured):
        raise LabsError(f"{run.engine} does not say how many prompt tokens were cached", "switch its cache report on")
    return run.measurement("cache_prediction_error", max(apart) / page_size, n=len(apart))


def pages(tokens: Tokens, page_size: int) -> list[tuple[int, ...]]:
    """The full pages of a sequence; what does not fill a page is left out."""
    return [tuple(tokens[i : i + page_size]) for i in range(0, len(tokens) - page_size + 1, page_size)]


def longest_prefix_first(prompts: Sequence[Tokens]) -> list[int]:
    """An order (indices) in which each request shares as much as any other can with the one before it.

    Requests with a common prefix then come in one piece, however deep it is: a walk through their tree, depth first,
    which no order can beat with a cache that holds but one request (arXiv 2312.07104, theorem 3.1).
    """
    waiting = list(range(len(prompts)))
    order = waiting[:1]
    waiting = waiting[1:]
    while waiting:
        last = prompts[order[-1]]
        best = max(waiting, key=lambda i: shared(last, prompts[i]))
        waiting.remove(best)
        order.append(best)
    return order


def shared(a: Tokens, b: Tokens) -> int:
    """Tokens at the beginning that two sequences have in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def one_prefix(prompts: Sequence[Tokens]) -> int:
    """Prompt tokens saved by caching the one prefix that all prompts share."""
    common = min((shared(prompts[0], prompt) for prompt in prompts[1:]), default=0)
    return common * (len(prompts) - 1)


def last_request_only(prompts: Sequence[Tokens]) -> int:
    """Prompt tokens saved by a cache that holds the request before and nothing else."""
    return sum(min(shared(a, b), len(b) - 1) for a, b in pairwise(prompts))
