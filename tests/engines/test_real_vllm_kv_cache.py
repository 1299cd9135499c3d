"""vLLM's KV cache on this machine: the pool it makes, the fp8 it stores, and the int8 that it must not be asked for.

Texts are scored token by token, each with the true tokens before it, and held against transformers in fp32.
"""

from __future__ import annotations

import asyncio
import functools

import pytest

from labs_helpers import bench
from labs_helpers.engines import install, process
from labs_helpers.engines.vllm import WRONG_ON_CPU
from labs_helpers.errors import LabsError
from labs_helpers.model import kv_quantization, workloads

pytestmark = pytest.mark.engine("vllm")
SMALL = {
    "kv_cache_bytes": 8 * 2**20,
    "block_size": 64,
    "max_model_len": 2560,
    "max_num_batched_tokens": 256,
    "prefix_caching": False,
}
FP8_BYTES = 2560
"""Of one token: 10 layers, 2 KV heads of 64, a key and a value, one byte each."""


@functools.cache
def text() -> tuple[int, ...]:
    return tuple(workloads.held_out_texts(1, 400)[0])


@functools.cache
def expected_loss() -> float:
    (plain,) = kv_quantization.effects([text()], ("none",))
    return plain.loss


def scored(dtype: str) -> tuple[float, bench.KVPool, bench.Run | None]:
    """Loss, pool, and for a type that works the run of a load that needs more blocks than there are."""
    if not install.installed("vllm"):
        pytest.fail("vllm is not installed: ./labs engines install vllm")
    asked = {"extra_args": ("--kv-cache-dtype", dtype)} if dtype in WRONG_ON_CPU else {"kv_cache_dtype": dtype}

    async def look(server):
        found = await bench.score_text(server, text())
        pool = await bench.kv_pool(server)
        if dtype in WRONG_ON_CPU:
            return sum(found.losses) / len(found.losses), pool, None
        work = [bench.Request(tuple(p), max_tokens=120) for p in workloads.distinct(24, 40, seed=dtype)]
        run = await bench.run(server, work, concurrency=24, warmup=False, progress=False)
        return sum(found.losses) / len(found.losses), pool, run

    with process.serve("vllm", precision="bf16", options={**SMALL, **asked}) as server:
        return asyncio.run(look(server))


def test_fp8_has_the_blocks_that_were_computed_the_models_loss_and_the_preemptions_of_the_simulation():
    loss, pool, run = scored("fp8")
    assert pool.dtype == "fp8"
    assert pool.blocks == SMALL["kv_cache_bytes"] // (FP8_BYTES * pool.block_size)
    assert loss == pytest.approx(expected_loss(), abs=0.03)
    assert run is not None
    tokens = sum(sample.completion_tokens for sample in run.samples)
    assert tokens == 24 * 120 == run.engine_count("vllm:generation_tokens_total")
    lengths = [(40, 120)] * 24
    simulated = bench.simulate_batching(
        lengths, 24, budget=256, max_seqs=64, blocks=pool.blocks - 1, block_size=pool.block_size
    )
    assert simulated.preemptions > 0
    assert run.engine_count(bench.PREEMPTIONS) == pytest.approx(simulated.preemptions, abs=4)


def test_int8_is_still_wrong_so_it_is_still_refused():
    """When this fails, vLLM has a kernel for it on a CPU: take it out of WRONG_ON_CPU, and measure it in lab 3.3.3."""
    try:
        loss, *_ = scored("int8_per_token_head")
    except LabsError as error:  # the worker may also die of it
        assert "did not score" in str(error) or "ended" in str(error)
    else:
        assert loss > expected_loss() + 0.5
