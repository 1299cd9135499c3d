"""The forms in which engines load the course model: shipped bf16, fp32 and GGUF copies made on demand in the cache."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from labs_helpers.errors import LabsError
from labs_helpers.model.architecture import SPEC, WEIGHTS, Architecture
from labs_helpers.paths import cache_dir

if TYPE_CHECKING:
    from labs_helpers.engines.base import ModelSpec

__all__ = [
    "SPEC",
    "Architecture",
    "course_model_dir",
    "draft_dir",
    "gguf_path",
    "made_in_cache",
    "model_spec",
    "shipped_dir",
]

Precision = Literal["bf16", "fp32"]
GgufPrecision = Literal["f32", "f16", "bf16", "q8_0"]

BYTES_PER_WEIGHT = {"bf16": 2.0, "fp16": 2.0, "f16": 2.0, "fp32": 4.0, "f32": 4.0, "q8_0": 34 / 32}
"""Q8_0 stores 32 weights as 32 bytes and a 16-bit scale."""


def shipped_dir() -> Path:
    """The shipped bf16 model.

    Raises:
        LabsError: the checkout lacks it.
    """
    folder = WEIGHTS / "course"
    if not (folder / "model.safetensors").is_file():
        raise LabsError(
            f"the course model is missing: no {folder / 'model.safetensors'}",
            "restore it with `git checkout`, or train it: ./labs model train",
        )
    return folder


def draft_dir(name: str) -> Path:
    """The shipped draft called `name`: medusa, eagle3, eagle or draft, in bf16.

    Raises:
        LabsError: there is no such draft, or the checkout lacks it.
    """
    drafts = ("medusa", "eagle3", "eagle", "draft")
    if name not in drafts:
        raise LabsError(f"there is no draft {name!r}", f"drafts: {', '.join(drafts)}")
    folder = WEIGHTS / name
    if not (folder / "model.safetensors").is_file():
        raise LabsError(
            f"the draft {name} is missing: no {folder / 'model.safetensors'}",
            f"restore it with `git checkout`, or train it: ./labs model train {name} --out {folder}",
        )
    return folder


def content_hash(folder: Path) -> str:
    """Twelve hexadecimal digits that change when weights, configuration or tokenizer do."""
    digest = blake2b(digest_size=6)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        if (folder / name).exists():  # a draft may have no tokenizer of its own
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def made_in_cache(name: str, make: Callable[[Path], None], *sources: Path) -> Path:
    """The cached file or folder `name`, made beside its place and moved there whole when absent.

    It belongs to the shipped course model and to the model folders `sources`: another content, another place.

    Raises:
        LabsError: the cache cannot be written.
    """
    target = cache_dir() / "model" / "-".join(map(content_hash, (shipped_dir(), *sources))) / name
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as scratch:
            made = Path(scratch) / name
            make(made)
            _let_all_read(made)
            try:
                made.rename(target)
            except OSError:
                if not target.exists():  # otherwise another process was faster, with the same result
                    raise
    except OSError as error:
        raise LabsError(
            f"cannot write {target}: {error.strerror or error}",
            "free some disk space or set LABS_CACHE to another folder",
        ) from error
    return target


def _let_all_read(made: Path) -> None:
    """safetensors writes for the owner only; in grading's sandbox an engine runs as somebody else."""
    for path in (made, *made.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _write_fp32(folder: Path) -> None:
    from safetensors.torch import load_file

    from labs_helpers.model.checkpoint import write_model
    from labs_helpers.model.tokenizer import copy_tokenizer

    shipped = shipped_dir()
    write_model(load_file(shipped / "model.safetensors"), "fp32", folder)
    copy_tokenizer(shipped, folder)


def course_model_dir(precision: Precision = "bf16") -> Path:
    """A directory of safetensors that transformers, vLLM and SGLang load.

    bf16 is the shipped one; fp32 holds exactly the same numbers in wider form, for tests of token identity.

    Raises:
        LabsError: the shipped weights are missing, the precision is unknown, or the cache cannot be written.
    """
    if precision == "bf16":
        return shipped_dir()
    if precision == "fp32":
        return made_in_cache("fp32", _write_fp32)
    raise LabsError(f"the course model has no safetensors in {precision!r}", "use bf16 or fp32")


def gguf_path(precision: GgufPrecision = "f32") -> Path:
    """The model as one GGUF file for llama.cpp, written into the cache when it is not there.

    Raises:
        LabsError: the precision is unknown, the weights are missing, or the cache cannot be written.
    """
    from labs_helpers.model.gguf import PRECISIONS, write_gguf

    if precision not in PRECISIONS:
        raise LabsError(f"the course model has no GGUF in {precision!r}", f"use one of {', '.join(PRECISIONS)}")
    return made_in_cache(f"{SPEC.name}-{precision}.gguf", lambda path: write_gguf(shipped_dir(), path, precision))


def model_spec(precision: str = "bf16", format: Literal["safetensors", "gguf"] = "safetensors") -> ModelSpec:
    """The course model as an engine's `ModelSpec`, with what the roofline needs.

    Precisions: bf16, fp32 for safetensors; f32 (or fp32), f16, bf16, q8_0 for gguf.
    """
    from labs_helpers.engines.base import ModelSpec

    if format == "gguf":
        kind = {"fp32": "f32", "fp16": "f16"}.get(precision, precision)
        location = gguf_path(kind)  # type: ignore[arg-type]
    else:
        location = course_model_dir(precision)  # type: ignore[arg-type]
    return ModelSpec(
        name=SPEC.name,
        location=str(location),
        precision=precision,
        parameters=SPEC.parameters,
        bytes_per_token=round(SPEC.parameters_read_per_token * BYTES_PER_WEIGHT[precision]),
    )
