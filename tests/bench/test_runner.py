"""`bench.run`: what a lab calls, and what it may rely on."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from labs_helpers import bench
from labs_helpers.bench.metrics import Event
from labs_helpers.bench.sample import Sample
from labs_helpers.bench.saturation import saturation
from labs_helpers.engines.base import Availability, Counters, Engine, LaunchSpec, ModelSpec, Server
from labs_helpers.errors import LabsError
from labs_helpers.machine import Machine
from labs_helpers.results import Load
from tests.oracle.process import MODEL, OracleProcess

PROMPTS = [f"prompt number {i}" for i in range(6)]


class OracleEngine(Engine):
    name, title = "oracle", "Oracle"

    def availability(self, machine: Machine) -> Availability:
        return Availability(True)

    def version(self) -> str:
        return "1.0"

    def model(self, precision: str) -> ModelSpec:
        return ModelSpec("course", "nowhere", precision)

    def launch(self, model: ModelSpec, port: int, **options: Any) -> LaunchSpec:
        return LaunchSpec(("true",))

    async def counters(self, base_url: str) -> Counters:
        async with aiohttp.ClientSession() as session, session.get(f"{base_url}/metrics") as answer:
            raw = {k: float(v) for k, v in re.findall(r"oracle:(\w+)_total (\d+)", await answer.text())}
        return Counters(
            prompt_tokens=raw["prompt_tokens"],
            generation_tokens=raw["generation_tokens"],
            requests=raw["requests"],
            cached_tokens=raw["cached_tokens"],
            raw=raw,
        )


@pytest.fixture
def server(oracle: OracleProcess) -> Server:
    engine = OracleEngine()
    return Server(oracle.base_url, engine, engine.version(), engine.model("fp32"), Path("none.log"), oracle.pid, 0.1)


async def test_a_run_measures_every_metric_with_provenance_and_witness(server: Server) -> None:
    run = await bench.run(
        server,
        PROMPTS,
        concurrency=2,
        output_tokens=9,
        workload="chat",
        chat=True,
        limits=bench.Limits(ttft_ms=60_000),
        extra={"oracle": {"cached": 2}},
        progress=False,
    )
    found = {m.metric: m for m in run.measurements()}
    assert set(found) == {
        "ttft",
        "tpot",
        "itl",
        "e2e",
        "prefill_throughput",
        "decode_throughput",
        "output_throughput",
        "request_throughput",
        "goodput",
        "prompt_tokens",
        "completion_tokens",
        "cached_tokens",
        "cache_hit_rate",
    }
    for m in found.values():
        assert (m.engine, m.engine_version, m.model, m.precision) == ("oracle", "1.0", "course", "fp32")
        assert m.machine and m.n >= 1  # fewer than 6 where one read of the socket brought a whole stream
        assert (m.load.workload, m.load.concurrency, m.load.requests) == ("chat", 2, 6)
        assert (m.load.prompt_tokens, m.load.output_tokens) == (3.0, 9.0)
    totals = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_hit_rate")
    assert all(m.spread is not None for name, m in found.items() if name not in totals)
    for name in (*totals, "output_throughput", "request_throughput"):
        assert found[name].witness_error == pytest.approx(0, abs=1e-9), name
    assert found["completion_tokens"].value == 54
    assert found["cache_hit_rate"].value == pytest.approx(2 / 3)
    assert found["goodput"].value == found["request_throughput"].value
    assert found["itl"].n == 6 * 8


async def test_warm_up_is_twice_the_concurrency_and_is_not_counted(server: Server, oracle: OracleProcess) -> None:
    run = await bench.run(server, PROMPTS, concurrency=3, output_tokens=2, progress=False)
    asked = [t["body"]["prompt"] for t in oracle.truths()]
    assert len(run.samples) == 6
    assert run.counters is not None and run.counters.requests == 6
    warm_up, counted = asked[:6], asked[6:]
    assert sorted(counted) == PROMPTS
    assert not any(w[:6] == c[:6] for w in warm_up for c in counted)  # no shared prefix, so no cache was warmed


async def test_no_warm_up_means_none(server: Server, oracle: OracleProcess) -> None:
    await bench.run(server, PROMPTS, concurrency=3, output_tokens=2, warmup=False, progress=False)
    assert len(oracle.truths()) == 6


async def test_an_open_loop_run_names_its_arrivals(server: Server) -> None:
    run = await bench.run(server, PROMPTS, request_rate=200, burstiness=2, output_tokens=2, requests=9, progress=False)
    load = run.load
    assert (load.arrival, load.request_rate, load.burstiness, load.concurrency) == ("open", 200, 2, None)
    assert len(run.samples) == 9
    assert "repeated-prompts" in run.flags


async def test_goodput_asks_for_all_limits(server: Server) -> None:
    limits = bench.Limits(ttft_ms=0.001, tpot_ms=60_000)  # the oracle waits 20 ms
    run = await bench.run(server, PROMPTS, output_tokens=5, limits=limits, progress=False)
    (goodput,) = [m for m in run.measurements() if m.metric == "goodput"]
    assert (goodput.value, goodput.n) == (0, 6)


async def test_single_failures_are_counted_and_flagged(server: Server) -> None:
    broken = bench.Request("broken", max_tokens=2, extra={"oracle": {"fault": "reset", "fault_after": 1}})
    run = await bench.run(server, [*PROMPTS, broken], output_tokens=2, requests=7, warmup=False, progress=False)
    assert len(run.samples) == 7 and len(run.good) == 6
    (why,) = run.errors
    assert "the connection broke" in why
    assert all("1-of-7-failed" in m.flags for m in run.measurements())
    assert "1 failed: the connection broke" in repr(run)


@pytest.mark.parametrize("warmup", [True, False])
async def test_a_run_in_which_nothing_succeeded_raises(server: Server, warmup: bool) -> None:
    with pytest.raises(LabsError, match=r"all \d requests failed: .* the oracle was told to fail"):
        await bench.run(server, PROMPTS, extra={"oracle": {"fault": "http500"}}, warmup=warmup, progress=False)


async def test_a_server_of_ours_is_asked_for_the_name_it_serves(server: Server, oracle: OracleProcess) -> None:
    run = await bench.run(server, PROMPTS[:1], output_tokens=2, progress=False)
    assert oracle.truths()[0]["body"]["model"] == MODEL  # not 'course', which would be answered with 404
    assert run.model == "course"


async def test_an_address_is_enough(oracle: OracleProcess) -> None:
    run = await bench.run(f"{oracle.base_url}/v1", PROMPTS[:2], output_tokens=2, progress=False)
    assert (run.engine, run.engine_version, run.model, run.counters) == ("endpoint", "unknown", MODEL, None)
    assert all(m.witness is None for m in run.measurements() if m.metric == "completion_tokens")


async def test_a_wrong_model_of_an_endpoint_is_told_the_right_one(oracle: OracleProcess) -> None:
    with pytest.raises(LabsError, match="offers 'oracle'"):
        await bench.run(bench.Endpoint(oracle.base_url, "other"), PROMPTS, progress=False)


async def test_ollama_is_measured_in_its_own_format(oracle: OracleProcess) -> None:
    endpoint = bench.Endpoint(oracle.base_url, engine="ollama", wire="ollama-ndjson")
    run = await bench.run(endpoint, PROMPTS, output_tokens=8, chat=True, ignore_eos=False, progress=False)
    found = {m.metric: m for m in run.measurements()}
    assert found["completion_tokens"].value == 48
    assert found["decode_throughput"].witness == pytest.approx(500)  # eval_count / eval_duration, 2 ms per token


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"concurrency": 2, "request_rate": 5.0}, "not both"),
        ({"concurrency": 0}, "at least one"),
        ({"requests": 0}, "at least one"),
        ({"output_tokens": 0}, "at least one"),
        ({"request_rate": 0.0}, "above 0"),
        ({"temprature": 0.0}, "has no temprature"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused(
    oracle: OracleProcess, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(LabsError, match=said):
        await bench.run(oracle.base_url, PROMPTS, progress=False, **arguments)
    assert oracle.truths() == []


async def test_no_server_is_a_clear_error() -> None:
    with pytest.raises(LabsError, match="lists no models"):
        await bench.run("http://127.0.0.1:9", PROMPTS, progress=False)


async def test_no_prompts_is_a_clear_error(oracle: OracleProcess) -> None:
    with pytest.raises(LabsError, match="no prompts"):
        await bench.run(oracle.base_url, [], progress=False)


async def test_progress_goes_to_stdout_and_ends_with_the_result(
    oracle: OracleProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    await bench.run(oracle.base_url, PROMPTS, output_tokens=2, workload="chat")
    said = capsys.readouterr()
    assert re.search(r"endpoint chat  6 requests in [\d.]+ s, [\d.]+ output tok/s\n$", said.out)
    assert said.err == ""


async def test_a_cancelled_run_leaves_no_task_behind(oracle: OracleProcess) -> None:
    running = asyncio.create_task(bench.run(oracle.base_url, PROMPTS, output_tokens=5000, progress=False))
    while not oracle.truths():  # noqa: ASYNC110 - another process is asked
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_tokens_that_show_no_text_count_in_the_throughput_and_in_its_spread() -> None:
    """A model made to go on after its end emits tokens without text; usage counts them."""
    samples = tuple(
        Sample(intended=i, sent=i, end=i + 1.0, events=(Event(i + 0.1, 1), Event(i + 0.2, 1)), completion_tokens=40)
        for i in range(10)
    )
    run = bench.Run(samples, Load(), 0.0, 10.0, saturation(samples, 0.0), None, None, "e", "1", "m", "fp32", "here")
    (throughput,) = run.measurements("output_throughput")
    assert throughput.value == 40 and throughput.spread is not None
    assert throughput.spread.low <= 40 <= throughput.spread.high


def _sample(lag: float, ttft: float) -> Sample:
    return Sample(intended=0.0, sent=lag, end=1.0, events=(Event(ttft, 1),), completion_tokens=1)


@pytest.mark.parametrize(
    ("lag", "cpu_share", "bound"), [(0.009, 0.5, False), (0.011, 0.5, True), (0.0, 0.95, True), (0.0, 0.5, False)]
)
def test_a_client_is_the_bottleneck_when_late_or_out_of_cpu(lag: float, cpu_share: float, bound: bool) -> None:
    assert saturation([_sample(lag, ttft=0.1)] * 5, cpu_share).client_bound is bound


async def test_a_part_of_a_mixed_load_stands_alone(server: Server) -> None:
    """Short and long prompts in one load: the short ones' own latencies, without a witness that counted both."""
    work = ["one", "two words", "three words long", "this prompt has many more words than the others have"]
    run = await bench.run(server, work, concurrency=2, output_tokens=60, workload="both", progress=False)
    part = run.where(lambda sample: sample.prompt_tokens <= 3, workload="short")
    assert len(part.samples) == 3 and part.load.workload == "short" and part.load.prompt_tokens == 2
    assert run.counters is not None and part.counters is None
    assert len(part.values("itl")) == 3 * 59
    (tail,) = part.measurements("itl_p99")
    assert tail.n == 177 and tail.value == pytest.approx(float(np.percentile(part.values("itl"), 99)))
    with pytest.raises(LabsError, match="no request of this run belongs to 'none'"):
        run.where(lambda sample: False, workload="none")


async def test_the_engines_own_counters_are_told_by_name(server: Server) -> None:
    run = await bench.run(server, PROMPTS, concurrency=2, output_tokens=5, progress=False)
    assert run.engine_count("generation_tokens") == 30
    assert run.output_tokens_per_s == pytest.approx(30 / run.duration_s)
    with pytest.raises(LabsError, match="counted no 'vllm:num_preemptions_total'"):
        run.engine_count("vllm:num_preemptions_total")


async def test_a_client_that_cannot_keep_up_marks_its_run(oracle: OracleProcess) -> None:
    """Something else stops the client's thread for 20 ms at a time: requests go out late, and the figures say so."""

    async def greedy() -> None:
        while True:
            until = time.monotonic() + 0.02
            while time.monotonic() < until:
                pass
            await asyncio.sleep(0)

    endpoint = bench.Endpoint(oracle.base_url, MODEL)
    hog = asyncio.create_task(greedy())
    try:
        run = await bench.run(endpoint, PROMPTS * 5, request_rate=200, output_tokens=3, warmup=False, progress=False)
    finally:
        hog.cancel()
    assert run.saturation.client_bound
    assert all("client-bound" in m.flags for m in run.measurements())
