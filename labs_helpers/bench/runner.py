"""`run`: the one entry point of all labs. Warms a server up, offers a load, reads what came back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import aiohttp

from labs_helpers.bench import client, witness
from labs_helpers.bench.client import STALL_S, Sample
from labs_helpers.bench.load import Send, arrivals, closed_loop, open_loop
from labs_helpers.bench.progress import request_progress
from labs_helpers.bench.report import Limits, Run
from labs_helpers.bench.request import Message, Request, as_requests, with_unique_prefix
from labs_helpers.bench.saturation import CpuMeter, no_garbage_collection, saturation
from labs_helpers.bench.target import Endpoint, Target, resolve
from labs_helpers.errors import LabsError
from labs_helpers.results import Load

if TYPE_CHECKING:
    from labs_helpers.engines.base import Server


async def run(
    server: Server | Endpoint | str,
    prompts: Iterable[Request | str | Sequence[int] | Sequence[Message]],
    *,
    concurrency: int | None = None,
    request_rate: float | None = None,
    burstiness: float = 1.0,
    output_tokens: int = 64,
    requests: int | None = None,
    workload: str = "",
    warmup: bool = True,
    limits: Limits | None = None,
    seed: int = 0,
    stall_s: float = STALL_S,
    progress: bool = True,
    **request_fields: Any,
) -> Run:
    """Offer a load to a server and measure it.

    Args:
        server: a running `Server`, an `Endpoint`, or the address of an OpenAI-compatible server.
        prompts: text, token ids or messages; a `Request` is sent as it is.
        concurrency: closed loop with this many requests in flight; 1 when no `request_rate` is given either.
        request_rate: open loop with this many arrivals per second, Poisson unless `burstiness` (gamma shape) is not 1.
        output_tokens: `max_tokens` of every prompt that is not a `Request`.
        requests: how many to send; all prompts once by default. More than there are prompts repeats them, which a
            prefix cache will notice: the run is flagged 'repeated-prompts'.
        workload: a name for the load in tables and plots.
        warmup: first send 2 x concurrency requests (at least 2) that are not counted. They begin differently, so that
            they warm the engine but not its prefix cache.
        limits: what a request must meet to count towards goodput.
        seed: of the arrival times.
        stall_s: give a stream up after this long without data.
        progress: show a line on stdout.
        request_fields: further fields of every `Request`, e.g. `chat=True`, `ignore_eos=False`, `extra={...}`.

    Raises:
        LabsError: the arguments do not fit together, the server cannot be reached, or ALL requests failed. Single
            failures are samples with an error, and a flag on every measurement.
    """
    if concurrency is not None and request_rate is not None:
        raise LabsError("a load has a concurrency or a request rate, not both", "leave one of them out")
    offered = as_requests(prompts, max_tokens=output_tokens, **request_fields)
    n = len(offered) if requests is None else requests
    if n < 1:
        raise LabsError(f"requests is {n}", "send at least one request")
    chosen = list(islice(cycle(offered), n))
    streams = 1 if concurrency is None else concurrency
    if streams < 1:
        raise LabsError(f"concurrency is {concurrency}", "keep at least one request in flight")
    offsets = arrivals(n, request_rate, burstiness, seed) if request_rate is not None else None
    async with client.open_session() as session:
        target = await resolve(server, session)
        for request in offered:
            target.wire.body(request, target.asked_model)  # what cannot be sent must fail here, not amid the load
        send = _sender(session, target, stall_s)
        if warmup:
            await _warm_up(send, offered, max(2, 2 * streams), streams, target)
        before = await witness.settled(target.counters)
        with request_progress(f"{target.engine} {workload}".strip(), n, progress) as line, no_garbage_collection():
            meter = CpuMeter()
            if offsets is not None:
                captures = await open_loop(send, chosen, offsets, lambda c: line.step(c.error is not None))
            else:
                captures = await closed_loop(send, chosen, streams, lambda c: line.step(c.error is not None))
            cpu_share = meter.share()
            samples = tuple(client.read(capture, target.wire) for capture in captures)
            good = client.succeeded(samples)
            duration_s = max(s.end for s in samples) - min(s.intended for s in samples)
            line.close(_summary(samples, good, duration_s))
        after = await witness.settled(target.counters)
    load = Load(
        workload=workload, arrival="open" if offsets is not None else "closed",
        concurrency=None if offsets is not None else streams, request_rate=request_rate,
        burstiness=burstiness if offsets is not None else None, requests=n,
        prompt_tokens=_mean([s.prompt_tokens for s in good]), output_tokens=_mean([s.completion_tokens for s in good]),
    )
    client_state = saturation(good, cpu_share)
    return Run(
        samples=samples, load=load, started=min(s.intended for s in samples), ended=max(s.end for s in samples),
        saturation=client_state,
        counters=after.since(before) if after is not None and before is not None else None,
        limits=limits, engine=target.engine, engine_version=target.version, model=target.model,
        precision=target.precision, machine=_machine_label(),
        flags=_flags(client_bound=client_state.client_bound, failed=len(samples) - len(good), sent=n,
                     repeated=n > len(offered)),
    )


def _sender(session: aiohttp.ClientSession, target: Target, stall_s: float) -> Send:
    async def send(request: Request, due: float) -> client.Capture:
        return await client.capture(session, target.base_url, target.asked_model, request, due, wire=target.wire,
                                    stall_s=stall_s)

    return send


async def _warm_up(send: Send, offered: Sequence[Request], n: int, streams: int, target: Target) -> None:
    """Send requests that are not counted; what a cold engine compiles and allocates is not what is measured.

    Raises:
        LabsError: none of them was answered; the load itself would fail as well.
    """
    rehearsal = [with_unique_prefix(r, f"Warm-up {i}.") for i, r in enumerate(islice(cycle(offered), n))]
    captures = await closed_loop(send, rehearsal, max(streams, 2))
    client.succeeded([client.read(capture, target.wire) for capture in captures])


def _flags(*, client_bound: bool, failed: int, sent: int, repeated: bool) -> tuple[str, ...]:
    flags = {
        "client-bound": client_bound,
        f"{failed}-of-{sent}-failed": failed > 0,
        "repeated-prompts": repeated,
    }
    return tuple(name for name, is_set in flags.items() if is_set)


def _summary(samples: Sequence[Sample], good: Sequence[Sample], duration_s: float) -> str:
    failed = f", {len(samples) - len(good)} failed" if len(good) < len(samples) else ""
    tokens = sum(s.completion_tokens for s in good)
    return f"{len(samples)} requests{failed} in {duration_s:.1f} s, {tokens / duration_s:.1f} output tok/s"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _machine_label() -> str:
    from labs_helpers.machine import detect

    return detect().label
