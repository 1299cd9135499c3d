"""Figures other people published, each with its precision and source: to compare with, never to stand in for a run.

All are of one DGX Spark unless the machine says otherwise. They are drawn apart from measurements everywhere.
"""

from __future__ import annotations

from labs_helpers.results import Load, Measurement, select

LMSYS = "LMSYS blog, 'NVIDIA DGX Spark', 2025-10-13 (lmsys.org/blog)"
LLAMA_CPP = "llama.cpp repository, benches/dgx-spark (github.com/ggml-org/llama.cpp)"
VLLM_RECIPES = "vllm-project/recipes, pull request 918 (github.com/vllm-project/recipes)"
SECONDARY = "secondary source, not traced to a first publication"
EAGLE3_PAPER = "EAGLE-3 paper, arXiv:2503.01840, Table 1, temperature 0, mean of five tasks"
MEDUSA_PAPER = "Medusa paper, arXiv:2401.10774"
SGLANG_DOCS = "SGLang documentation, speculative decoding (docs.sglang.ai)"

SPARK = "DGX Spark"
UNSTATED = "not stated"


def _row(
    engine: str,
    model: str,
    precision: str,
    cited_from: str,
    *,
    prefill: float | None = None,
    decode: float | None = None,
    batch: float | None = None,
    batch_size: int = 32,
    machine: str = SPARK,
) -> list[Measurement]:
    """The figures of one published run: prefill, decode of one stream, and output throughput of a batch, in tok/s."""
    figures = [
        ("prefill_throughput", prefill, 1),
        ("decode_throughput", decode, 1),
        ("output_throughput", batch, batch_size),
    ]
    return [
        Measurement(
            metric=metric,
            value=value,
            engine=engine,
            model=model,
            precision=precision,
            machine=machine,
            load=Load(concurrency=concurrency),
            source="reference",
            cited_from=cited_from,
        )
        for metric, value, concurrency in figures
        if value is not None
    ]


def _speculation(
    method: str,
    model: str,
    cited_from: str,
    *,
    speedup: float,
    acceptance: float | None = None,
) -> list[Measurement]:
    """The speedup and acceptance length a paper reports for one way to speculate."""
    figures = {"speedup": speedup, "acceptance_length": acceptance}
    return [
        Measurement(
            metric=metric,
            value=value,
            engine=method,
            model=model,
            precision=UNSTATED,
            machine=UNSTATED,
            load=Load(concurrency=1),
            source="reference",
            cited_from=cited_from,
        )
        for metric, value in figures.items()
        if value is not None
    ]


SPARK_SERVING: tuple[Measurement, ...] = tuple(
    [
        *_row("sglang", "Llama-3.1-8B", "FP8", LMSYS, prefill=7991, decode=20.5, batch=368),
        *_row("sglang", "Llama-3.1-70B", "FP8", LMSYS, prefill=803, decode=2.7),
        *_row("ollama", "gpt-oss-20b", "MXFP4", LMSYS, prefill=2053, decode=49.7),
        *_row("llama.cpp", "gpt-oss-20b", "MXFP4", LLAMA_CPP, prefill=3783, decode=84.1),
        *_row("llama.cpp", "gpt-oss-120b", "MXFP4", LLAMA_CPP, prefill=1938, decode=59.0),
        *_row("llama.cpp", "Qwen2.5-Coder-7B", "Q8_0", LLAMA_CPP, prefill=2276, decode=29.3, batch=593),
        *_row("vllm", "Qwen3.6-35B-A3B", "NVFP4", VLLM_RECIPES, prefill=6265, decode=97.7),
        *_row("nim", "Llama-3.1-8B", "FP8", f"NIM with vLLM 0.10.1; {SECONDARY}", decode=22.1),
        *_row("tensorrt-llm", "Llama-3.1-8B", "NVFP4", SECONDARY, decode=38.7),
    ]
)
"""Serving figures of one DGX Spark."""

SPECULATION: tuple[Measurement, ...] = tuple(
    [
        *_speculation("Medusa", "Vicuna-13B", EAGLE3_PAPER, speedup=2.12, acceptance=2.51),
        *_speculation("EAGLE", "Vicuna-13B", EAGLE3_PAPER, speedup=3.05, acceptance=3.96),
        *_speculation("EAGLE-2", "Vicuna-13B", EAGLE3_PAPER, speedup=4.22, acceptance=4.83),
        *_speculation("EAGLE-3", "Vicuna-13B", EAGLE3_PAPER, speedup=5.51, acceptance=6.62),
        *_speculation("EAGLE-2", "Llama-3.1-8B", EAGLE3_PAPER, speedup=3.23, acceptance=4.11),
        *_speculation("EAGLE-3", "Llama-3.1-8B", EAGLE3_PAPER, speedup=4.44, acceptance=6.23),
        *_speculation("Medusa-1", "Vicuna-7B", MEDUSA_PAPER, speedup=2.18),
        *_speculation("Medusa-2", "Vicuna-7B", MEDUSA_PAPER, speedup=2.83),
    ]
)
"""Speedup and acceptance length as the papers report them."""

H100_SPECULATION: tuple[Measurement, ...] = tuple(
    [
        *_row("sglang", "Llama-3.1-8B", UNSTATED, f"{SGLANG_DOCS}: without speculation", decode=158, machine="H100"),
        *_row("sglang + EAGLE-2", "Llama-3.1-8B", UNSTATED, SGLANG_DOCS, decode=244, machine="H100"),
        *_row("sglang + EAGLE-3", "Llama-3.1-8B", UNSTATED, SGLANG_DOCS, decode=373, machine="H100"),
    ]
)
"""Decode of one stream on an H100, from SGLang's documentation."""

ALL: tuple[Measurement, ...] = (*SPARK_SERVING, *SPECULATION, *H100_SPECULATION)

DENSE_WEIGHT_BYTES: dict[tuple[str, str], float] = {
    ("Llama-3.1-8B", "bf16"): 16.0e9,
    ("Llama-3.1-8B", "FP8"): 8.0e9,
    ("Llama-3.1-8B", "Q8_0"): 8.0e9,
    ("Llama-3.1-8B", "NVFP4"): 5.0e9,
    ("Llama-3.1-8B", "Q4_K_M"): 4.6e9,
}
"""Bytes of weights that decoding one token reads, rounded, for a dense 8B model: our arithmetic, not a citation.
NVFP4 keeps the output head in bf16. Mixture-of-experts models read only their active experts and are not listed."""


def references(metric: str | None = None, **fields: str) -> list[Measurement]:
    """The published figures of one metric, e.g. `references("decode_throughput", machine="DGX Spark")`."""
    return select(ALL, metric, **fields)


def spark() -> list[Measurement]:
    """The published serving figures of one DGX Spark."""
    return list(SPARK_SERVING)
