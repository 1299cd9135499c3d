"""How true are a client's figures? Ours and `vllm bench serve` against a server that knows what it really sent.

    python benchmarks/client_fidelity.py                       # table; about five minutes
    python benchmarks/client_fidelity.py --json --out FILE     # the same as JSON, also into a file

Both clients offer the same load to the same oracle (tests/oracle/server.py, a process of its own), in turns, each in a
fresh process: 64 streams, 128 requests after 128 that are not counted. For every request the oracle knows when it
emitted what, on the clock all processes share, and the first words of an answer name its request. So:

    TTFT error   what the client reports - (true emission of the first content - when it says it sent)
    TPOT error   what the client reports - (true last emission - true first) / tokens after the first content event
    CPU/event    what one more event costs the client's process, from the socket to the figures: its CPU time under
                 this load less that under the same number of one-token requests, over the events between the two
    CPU/request  CPU time under the one-token requests, over those requests
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import outcome  # noqa: E402
from labs_helpers.bench.metrics import bootstrap95, iqr, median, percentile_or_max  # noqa: E402
from labs_helpers.errors import LabsError  # noqa: E402
from labs_helpers.paths import cache_dir  # noqa: E402
from tests.oracle.process import OracleProcess, oracle  # noqa: E402

WORKERS = Path(__file__).with_name("workers")
STREAMS, REQUESTS, TOKENS = 64, 128, 65
TTFT_MS, GAP_MS = 200, 20


@dataclass(frozen=True)
class Scenario:
    """What the oracle sends."""

    name: str
    title: str
    chat: bool
    oracle: tuple[str, ...]


SCENARIOS = (
    Scenario("plain", "1 token per event", False, ()),
    Scenario("role-1", "1 token per event, early role event", True, ("--role-event",)),
    Scenario("role-4", "4 tokens per event, early role event", True, ("--role-event", "--tokens-per-event", "4")),
)


@dataclass(frozen=True)
class Client:
    name: str
    python: str
    worker: str


def clients(vllm_python: str) -> list[Client]:
    """Ours, and vLLM's where its environment is installed."""
    found = [Client("labs", sys.executable, "labs_client.py")]
    if Path(vllm_python).exists():
        found.append(Client("vllm bench serve", vllm_python, "vllm_client.py"))
    return found


@dataclass(frozen=True)
class Pass:
    """One client, one scenario, once. Errors in ms, one per request."""

    ttft_errors: list[float]
    tpot_errors: list[float]
    cpu_us_per_event: float
    cpu_us_per_request: float
    version: str


def take(client: Client, scenario: Scenario, server: OracleProcess) -> Pass:
    """Run one client in a process of its own and hold its figures against the truth."""
    server.forget()
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch) / "answer.json"
        task = {
            "base_url": server.base_url,
            "chat": scenario.chat,
            "streams": STREAMS,
            "requests": REQUESTS,
            "tokens": TOKENS,
            "answer": str(answer),
            "scratch": scratch,
        }
        done = subprocess.run(
            [client.python, str(WORKERS / client.worker), json.dumps(task)],
            capture_output=True,
            text=True,
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"},
            check=False,
        )
        if done.returncode != 0 or not answer.exists():
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
            raise LabsError(f"{client.name} failed in {scenario.name}: {last[0]}", f"run it alone: {client.worker}")
        said = json.loads(answer.read_text())
    truths = {truth["id"]: truth for truth in server.truths()}
    if len(said["requests"]) != REQUESTS:
        raise LabsError(f"{client.name} reports {len(said['requests'])} of {REQUESTS} requests", "see its output")
    pairs = [(r, truths[r["id"]]) for r in said["requests"]]
    short = [t for t in truths.values() if _tokens(t) == 1]
    long = [t for t in truths.values() if _tokens(t) == TOKENS]
    if len(short) != len(long):
        raise LabsError(f"{client.name} sent {len(short)} short and {len(long)} long requests", "they must be as many")
    more_events = sum(len(t["emitted"]) for t in long) - len(short)
    cpu_short, cpu_long = said["cpu_s"]
    return Pass(
        ttft_errors=[(r["ttft"] - (t["emitted"][0][0] - r["sent"])) * 1e3 for r, t in pairs],
        tpot_errors=[(r["tpot"] - _true_tpot(t)) * 1e3 for r, t in pairs],
        cpu_us_per_event=(cpu_long - cpu_short) / more_events * 1e6,
        cpu_us_per_request=cpu_short / len(short) * 1e6,
        version=said["version"],
    )


def _true_tpot(truth: dict[str, Any]) -> float:
    emitted = truth["emitted"]
    return float(emitted[-1][0] - emitted[0][0]) / (_tokens(truth) - emitted[0][1])


def _tokens(truth: dict[str, Any]) -> int:
    return sum(tokens for _, tokens in truth["emitted"])


def row(client: str, scenario: Scenario, passes: list[Pass]) -> dict[str, Any]:
    """One line of the table. Errors: over all requests; CPU: over passes."""
    ttft = np.concatenate([p.ttft_errors for p in passes])
    tpot = np.concatenate([p.tpot_errors for p in passes])
    return {
        "client": client,
        "version": passes[0].version,
        "scenario": scenario.name,
        "title": scenario.title,
        "passes": len(passes),
        "requests": len(ttft),
        "ttft_error_ms": _summary(ttft),
        "tpot_error_ms": _summary(tpot),
        "cpu_us_per_event": _range([p.cpu_us_per_event for p in passes]),
        "cpu_us_per_request": _range([p.cpu_us_per_request for p in passes]),
    }


def _range(values: list[float]) -> dict[str, Any]:
    return {"median": median(values), "min": min(values), "max": max(values), "n": len(values)}


def _summary(errors: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    middle, tail = iqr(errors), percentile_or_max(np.abs(errors), 99)
    return {
        "median": median(errors),
        "iqr": [middle.low, middle.high],
        f"abs_{tail.label.lower()}": tail.value,
        "n": len(errors),
    }


def ratios(passes: dict[tuple[str, str], list[Pass]], names: list[str]) -> Iterator[dict[str, Any]]:
    """CPU per event of the peer over ours, per scenario; passes taken in turn make a pair."""
    for scenario in SCENARIOS:
        if len(names) == 2:
            ours, peer = ([p.cpu_us_per_event for p in passes[name, scenario.name]] for name in names)
            pairs = [b / a for a, b in zip(ours, peer, strict=True)]
            spread = bootstrap95(pairs)
            yield {
                "scenario": scenario.name,
                "cpu_ratio": float(np.mean(pairs)),
                "bootstrap95": [spread.low, spread.high],
                "n": len(pairs),
            }


def measure(vllm_python: str, repeats: int, *, quiet: bool) -> dict[str, Any]:
    """All scenarios, all clients, in turns."""
    found = clients(vllm_python)
    head = outcome.head("client fidelity")
    passes: dict[tuple[str, str], list[Pass]] = {}
    for scenario in SCENARIOS:
        timing = ("--ttft-ms", str(TTFT_MS), "--gap-ms", str(GAP_MS), "--detail", "asked")
        with oracle(*timing, *scenario.oracle) as server:
            for repeat in range(repeats):
                for client in found[:: 1 if repeat % 2 == 0 else -1]:
                    if not quiet:
                        print(
                            f"\r\x1b[2K{scenario.name}: {client.name}, pass {repeat + 1} of {repeats}",
                            end="",
                            flush=True,
                        )
                    passes.setdefault((client.name, scenario.name), []).append(take(client, scenario, server))
    if not quiet:
        print("\r\x1b[2K", end="")
    names = [client.name for client in found]
    return {
        **head,
        "python": sys.version.split()[0],
        "streams": STREAMS,
        "requests": REQUESTS,
        "tokens": TOKENS,
        "true_ttft_ms": TTFT_MS,
        "true_tpot_ms": GAP_MS,
        "repeats": repeats,
        "scenarios": [asdict(s) for s in SCENARIOS],
        "rows": [row(name, s, passes[name, s.name]) for s in SCENARIOS for name in names],
        "ratios": list(ratios(passes, names)),
        "unavailable": [] if len(found) == 2 else [f"vllm bench serve: no {vllm_python} (./labs engines install vllm)"],
    }


def show(result: dict[str, Any]) -> None:
    """The table, for a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{result['streams']} streams, true TTFT {result['true_ttft_ms']} ms and TPOT "
        f"{result['true_tpot_ms']} ms. Errors in ms, CPU in us"
    )
    for heading in (
        "load",
        "client",
        "TTFT error\nmedian, P99",
        "TPOT error\nmedian, P99",
        "CPU/event\n[min, max]",
        "CPU/request",
    ):
        table.add_column(heading)
    for line in result["rows"]:
        cpu = line["cpu_us_per_event"]
        table.add_row(
            line["scenario"],
            line["client"],
            _shown(line["ttft_error_ms"]),
            _shown(line["tpot_error_ms"]),
            f"{cpu['median']:.1f} [{cpu['min']:.1f}, {cpu['max']:.1f}]",
            f"{line['cpu_us_per_request']['median']:.0f}",
        )
    console = Console()
    console.print(table)
    for scenario in result["scenarios"]:
        console.print(f"{scenario['name']}: {scenario['title']}")
    for ratio in result["ratios"]:
        low, high = ratio["bootstrap95"]
        console.print(
            f"{ratio['scenario']}: vllm bench serve uses {ratio['cpu_ratio']:.2f}x our CPU per event "
            f"[{low:.2f}, {high:.2f}], {ratio['n']} pairs"
        )
    for reason in result["unavailable"]:
        console.print(f"not measured: {reason}")
    console.print(f"{result['machine']}, {result['repeats']} passes in turns")
    if warning := outcome.warning(result):
        console.print(warning)


def _shown(error: dict[str, Any]) -> str:
    tail = next(value for key, value in error.items() if key.startswith("abs_"))
    return f"{error['median']:+.2f}, {tail:.2f}"


def main() -> int:
    parser = outcome.parser(str(__doc__))
    parser.add_argument("--repeats", type=int, default=5, help="passes per client and load (default 5)")
    parser.add_argument(
        "--vllm-python",
        default=str(cache_dir() / "engines/vllm/bin/python"),
        help="Python of an environment with vLLM (default: the one of ./labs engines install vllm)",
    )
    options = parser.parse_args()
    quiet = options.json or not sys.stdout.isatty()
    return outcome.run(options, lambda: measure(options.vllm_python, options.repeats, quiet=quiet), show)


if __name__ == "__main__":
    sys.exit(main())
