"""`run`: the one entry point of all labs. Warms a server up, offers a load, reads what came back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import aiohttp

from labs_helpers.bench import client, witness
from labs_helpers.bench.client import STALL_S
from labs_helpers.bench.load import Plan, Send, closed_loop, make_plan
from labs_helpers.bench.progress import request_progress
from labs_helpers.bench.report import Limits, Run
from labs_helpers.bench.request import Message, Request, as_requests, with_unique_prefix
from labs_helpers.bench.sample import Capture, Sample, read, succeeded
from labs_helpers.bench.saturation import CpuMeter, Saturation, no_garbage_collection, saturation
from labs_helpers.bench.target import Endpoint, Target, resolve
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
    waves: bool = False,
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
        waves: send `concurrency` requests at a time and wait for the slowest of them, as static batching does.
        output_tokens: `max_tokens` of every prompt that is not a `Request`.
        requests: how many to send; all prompts once by default. More than there are prompts repeats them, which a
            prefix cache will notice: the run is flagged 'repeated-prompts'.
        workload: a name for the load in tables and plots.
        warmup: first send 2 x concurrency requests (2 in an open loop) that are not counted. They begin differently,
            so that they warm the engine but not its prefix cache.
        limits: what a request must meet to count towards goodput.
        seed: of the arrival times.
        stall_s: give a stream up after this long without data.
        progress: show a line on stdout.
        request_fields: further fields of every `Request`, e.g. `chat=True`, `ignore_eos=False`, `extra={...}`.

    Raises:
        LabsError: the arguments do not fit together, the server cannot be reached, or ALL requests failed. Single
            failures are samples with an error, and a flag on every measurement.
    """
    offered = as_requests(prompts, max_tokens=output_tokens, **request_fields)
    plan = make_plan(offered, requests, concurrency, request_rate, burstiness, seed, waves)
    async with client.open_session() as session:
        target = await resolve(server, session)
        for request in offered:
            target.wire.body(request, target.asked_model)  # what cannot be sent must fail here, not amid the load
        send = _sender(session, target, stall_s)
        with request_progress(f"{target.engine} {workload}".strip(), len(plan.requests), progress) as line:
            if warmup:
                line.note("warming up")
                await _warm_up(send, offered, plan.streams, target)
            before = await witness.settled(target.counters)
            with no_garbage_collection():
                meter = CpuMeter()
                captures = await plan.offer(send, lambda capture: line.step(capture.error is not None))
                cpu_share = meter.share()
            samples = tuple(read(capture, target.wire) for capture in captures)
            good = succeeded(samples)
            after = await witness.settled(target.counters)
            client_state = saturation(good, cpu_share)
            result = Run(
                samples=samples,
                load=_load(plan, workload, good),
                saturation=client_state,
                limits=limits,
                started=min(s.intended for s in samples),
                ended=max(s.end for s in samples),
                counters=after.since(before) if after is not None and before is not None else None,
                engine=target.engine,
                engine_version=target.version,
                model=target.model,
                precision=target.precision,
                machine=_machine_label(),
                flags=_flags(plan, client_state, len(samples) - len(good)),
            )
            line.close(_summary(result))
    return result


def _sender(session: aiohttp.ClientSession, target: Target, stall_s: float) -> Send:
    async def send(request: Request, due: float) -> Capture:
        return await client.capture(
            session, target.base_url, target.asked_model, request, due, wire=target.wire, stall_s=stall_s
        )

    return send


async def _warm_up(send: Send, offered: Sequence[Request], streams: int, target: Target) -> None:
    """Send requests that are not counted; what a cold engine compiles and allocates is not what is measured.

    Raises:
        LabsError: none of them was answered; the load itself would fail as well.
    """
    rehearsal = [with_unique_prefix(r, f"Warm-up {i}.") for i, r in enumerate(islice(cycle(offered), 2 * streams))]
    captures = await closed_loop(send, rehearsal, streams)
    succeeded([read(capture, target.wire) for capture in captures])


def _load(plan: Plan, workload: str, good: Sequence[Sample]) -> Load:
    is_open = plan.offsets is not None
    return Load(
        workload=workload,
        arrival=plan.arrival,
        concurrency=None if is_open else plan.streams,
        request_rate=plan.request_rate,
        burstiness=plan.burstiness if is_open else None,
        requests=len(plan.requests),
        prompt_tokens=_mean([s.prompt_tokens for s in good]),
        output_tokens=_mean([s.completion_tokens for s in good]),
    )


def _flags(plan: Plan, client_state: Saturation, failed: int) -> tuple[str, ...]:
    flags = {
        "client-bound": client_state.client_bound,
        f"{failed}-of-{len(plan.requests)}-failed": failed > 0,
        "repeated-prompts": plan.repeats_prompts,
    }
    return tuple(name for name, is_set in flags.items() if is_set)


def _summary(run: Run) -> str:
    good = run.good
    failed = f", {len(run.samples) - len(good)} failed" if len(good) < len(run.samples) else ""
    tokens = sum(s.completion_tokens for s in good)
    return f"{len(run.samples)} requests{failed} in {run.duration_s:.1f} s, {tokens / run.duration_s:.1f} output tok/s"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _machine_label() -> str:
    from labs_helpers.machine import detect

    return detect().label
