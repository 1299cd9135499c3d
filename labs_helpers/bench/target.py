"""Who is measured: a server of ours, or any endpoint by its address, with the provenance its figures need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from labs_helpers.bench.client import model_names
from labs_helpers.bench.wire import OPENAI, Wire, wire_named
from labs_helpers.errors import LabsError

if TYPE_CHECKING:
    from labs_helpers.engines.base import Counters, Server


@dataclass(frozen=True)
class Endpoint:
    """A server that somebody else runs.

    `model` is the name to ask for; when empty, the only one it offers. A version that is not known is measured as
    'unknown'. `counters` reads the server's own totals, the witness of the client's.
    """

    base_url: str
    """e.g. 'http://127.0.0.1:8000', without /v1."""
    model: str = ""
    engine: str = "endpoint"
    version: str = "unknown"
    precision: str = ""
    wire: str = OPENAI.name
    counters: Callable[[], Awaitable[Counters]] | None = None


@dataclass(frozen=True)
class Target:
    """What a run needs to know of its server."""

    base_url: str
    asked_model: str
    """The name the requests carry."""
    model: str
    """The name the figures carry."""
    engine: str
    version: str
    precision: str
    wire: Wire
    counters: Callable[[], Awaitable[Counters]] | None


async def resolve(server: Server | Endpoint | str, session: aiohttp.ClientSession) -> Target:
    """Find out under which name the server serves its model.

    A server of ours may serve the model under a path or an alias; an unknown name would be answered with 404.

    Raises:
        LabsError: it does not answer, or offers several models and none was named.
    """
    if isinstance(server, str):
        server = Endpoint(server)
    base_url = server.base_url.rstrip("/").removesuffix("/v1")
    if isinstance(server, Endpoint):
        wire = wire_named(server.wire)
        name = server.model or _choose(await model_names(session, base_url, wire), "", base_url)
        return Target(base_url, name, name, server.engine, server.version, server.precision, wire, server.counters)
    wire = wire_named(getattr(server.engine, "wire", OPENAI.name))
    name = _choose(await model_names(session, base_url, wire), server.model.name, base_url)
    return Target(
        base_url, name, server.model.name, server.engine.name, server.version, server.precision, wire, server.counters
    )


def _choose(offered: list[str], wanted: str, base_url: str) -> str:
    if wanted in offered:
        return wanted
    if len(offered) == 1:
        return offered[0]
    raise LabsError(
        f"{base_url} offers {', '.join(map(repr, offered)) or 'no model'}" + (f", not {wanted!r}" if wanted else ""),
        "name one of its models",
    )
