"""The stream formats the client can read.

While a stream runs the client only keeps bytes and arrival times. A format therefore needs no incremental parser: it
gets the whole body and says at which byte each event ended; the client looks up when that byte arrived. However the
network cut the body into chunks, the events are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labs_helpers.bench.ollama import ollama_body, read_ollama
from labs_helpers.bench.openai import openai_body, read_openai
from labs_helpers.bench.request import Request
from labs_helpers.bench.transcript import Transcript
from labs_helpers.errors import LabsError


@dataclass(frozen=True)
class Wire:
    """One format: where a request goes, what it looks like, how the answer reads."""

    name: str
    path: Callable[[Request], str]
    body: Callable[[Request, str], dict[str, Any]]
    read: Callable[[bytes], Transcript]
    models_path: str
    model_names: Callable[[Any], list[str]]


OPENAI = Wire(
    name="openai-sse",
    path=lambda request: "/v1/chat/completions" if request.is_chat else "/v1/completions",
    body=openai_body,
    read=read_openai,
    models_path="/v1/models",
    model_names=lambda answer: [m["id"] for m in answer.get("data", ())],
)

OLLAMA = Wire(
    name="ollama-ndjson",
    path=lambda request: "/api/chat" if request.is_chat else "/api/generate",
    body=ollama_body,
    read=read_ollama,
    models_path="/api/tags",
    model_names=lambda answer: [m["name"] for m in answer.get("models", ())],
)

_WIRES = {wire.name: wire for wire in (OPENAI, OLLAMA)}


def wire_named(name: str) -> Wire:
    """The format of this name.

    Raises:
        LabsError: there is no such format.
    """
    if name not in _WIRES:
        raise LabsError(f"unknown stream format {name!r}", f"choose one of {', '.join(_WIRES)}")
    return _WIRES[name]
