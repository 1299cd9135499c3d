"""A server whose timing is known exactly: it says when it emitted each event, so that a client can be proved right.

It speaks OpenAI's SSE and Ollama's NDJSON, follows a script instead of a model, and runs as a process of its own. Each
event is scheduled from the request's start: event k is due when its tokens are due. What was REALLY emitted is kept
and served at /truth, in seconds on CLOCK_MONOTONIC, which Linux shares among processes.

    python tests/oracle/server.py --ttft-ms 200 --gap-ms 20 --tokens-per-event 4 --role-event

A request may override any script field in its body: {"oracle": {"fault": "reset"}}.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

MODEL = "oracle"
FAULTS = ("", "http500", "stall", "reset", "truncate", "malformed", "error_event", "no_usage", "not_streaming", "empty")
clock = time.monotonic
Send = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True)
class Script:
    """What the server does with a request."""

    ttft_ms: float = 20.0
    """Start of service to the first content event."""
    gap_ms: float = 2.0
    """Between tokens; an event with k tokens comes k gaps after the one before it."""
    first_tokens: int = 1
    tokens_per_event: int = 1
    """Tokens in each event after the first."""
    role_event: bool = False
    """Send a role-only event as soon as the request is in service."""
    reasoning: int = 0
    """This many first content events are reasoning."""
    detail: str = "none"
    """How an event says what it carried: 'none', 'usage' (running), 'token_ids', 'logprobs', 'timings', or 'asked':
    running usage for a client that asks for it (stream_options.continuous_usage_stats)."""
    tokens: int = 0
    """Tokens to generate; 0: the request's max_tokens."""
    hidden_eos: bool = False
    """The last token shows no text, and finish_reason is 'stop'."""
    cached: int | None = None
    """cached_tokens in the usage."""
    padding: int = 0
    """Bytes of padding in every event."""
    word: str = "tok "
    newline: str = "\n"
    pieces: int = 1
    """Cut every event into this many writes, 2 ms apart: also amid a character."""
    fault: str = ""
    fault_after: int = 3
    """The fault happens after this many content events."""


@dataclass
class Truth:
    """What really happened to one request."""

    id: int
    arrived: float
    body: dict[str, Any]
    started: float = 0.0
    emitted: list[tuple[float, int]] = field(default_factory=list)
    """(time of the content event, its tokens)"""
    ended: float = 0.0
    """When the last event of any kind was emitted."""


class Oracle:
    def __init__(self, script: Script, slots: int) -> None:
        self.script = script
        self.slots = asyncio.Semaphore(slots)
        self.truths: list[Truth] = []
        self.totals = {"prompt_tokens": 0, "generation_tokens": 0, "requests": 0, "cached_tokens": 0}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 28)
        app.add_routes(
            [
                web.post("/v1/completions", self.openai),
                web.post("/v1/chat/completions", self.openai),
                web.post("/api/generate", self.ollama),
                web.post("/api/chat", self.ollama),
                web.get("/v1/models", self.models),
                web.get("/api/tags", self.tags),
                web.get("/health", self.health),
                web.get("/metrics", self.metrics),
                web.get("/truth", self.truth),
                web.post("/forget", self.forget),
            ]
        )
        return app

    async def openai(self, request: web.Request) -> web.StreamResponse:
        arrived = clock()
        body = orjson.loads(await request.read())
        if body.get("model") != MODEL:
            message = f"The model `{body.get('model')}` does not exist."
            return web.json_response({"error": {"message": message, "type": "NotFoundError"}}, status=404)
        return await self.serve(request, body, arrived, OpenAiFormat(body, self._script(body)))

    async def ollama(self, request: web.Request) -> web.StreamResponse:
        arrived = clock()
        body = orjson.loads(await request.read())
        if body.get("model") != MODEL:
            return web.json_response({"error": f"model '{body.get('model')}' not found"}, status=404)
        return await self.serve(request, body, arrived, OllamaFormat(body, self._script(body)))

    def _script(self, body: dict[str, Any]) -> Script:
        return dataclasses.replace(self.script, **body.get("oracle", {}))

    async def serve(
        self, request: web.Request, body: dict[str, Any], arrived: float, form: Format
    ) -> web.StreamResponse:
        script = form.script
        truth = Truth(len(self.truths), arrived, body)
        self.truths.append(truth)
        if script.fault == "http500":
            return web.json_response({"error": {"message": "the oracle was told to fail"}}, status=500)
        if script.fault == "not_streaming":
            return web.json_response({"choices": [{"text": "all at once"}]})
        async with self.slots:
            truth.started = clock()
            response = web.StreamResponse(headers={"Content-Type": form.content_type})
            await response.prepare(request)
            await self.emit(response, request, form, truth)
        self.totals["requests"] += 1
        self.totals["prompt_tokens"] += form.prompt_tokens
        self.totals["cached_tokens"] += script.cached or 0
        self.totals["generation_tokens"] += form.total
        return response

    async def emit(self, response: web.StreamResponse, request: web.Request, form: Format, truth: Truth) -> None:
        script = form.script

        async def send(data: bytes) -> None:
            if script.pieces > 1:
                size = -(-len(data) // script.pieces)
                cuts = [data[i : i + size] for i in range(0, len(data), size)]
                for cut in cuts[:-1]:
                    await response.write(cut)
                    await asyncio.sleep(0.002)
                data = cuts[-1]
            truth.ended = clock()
            await response.write(data)

        if script.role_event:
            await send(form.role())
        if script.fault == "empty":
            await response.write_eof()
            return
        done, k = 0, 0
        first = min(script.first_tokens, form.visible)
        while done < form.visible:
            tokens = min(script.first_tokens if k == 0 else script.tokens_per_event, form.visible - done)
            if script.fault and script.fault != "no_usage" and k == script.fault_after:
                await self.fail(response, request, form, send)
                return
            done += tokens
            due = truth.started + (script.ttft_ms + (done - first) * script.gap_ms) / 1e3
            data = form.content(truth.id, k, tokens, done)
            await sleep_until(due)
            await send(data)
            truth.emitted.append((truth.ended, tokens))
            k += 1
        if script.hidden_eos:
            await sleep_until(truth.ended + script.gap_ms / 1e3)
        for data in form.ending(with_usage=script.fault != "no_usage"):
            await send(data)
        if tail := form.marker():
            await response.write(tail)
        await response.write_eof()

    async def fail(self, response: web.StreamResponse, request: web.Request, form: Format, send: Send) -> None:
        match form.script.fault:
            case "stall":
                await asyncio.sleep(3600)
            case "reset":
                await asyncio.sleep(0.01)  # let what was written leave before the connection is torn down
                if request.transport is not None:
                    request.transport.abort()
            case "truncate":
                await response.write_eof()
            case "malformed":
                await send(form.frame(b'{"choices": [{"text": "tok'))
                await response.write_eof()
            case "error_event":
                await send(form.frame(orjson.dumps(form.error("the engine ran out of memory"))))
                await response.write_eof()

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def tags(self, _: web.Request) -> web.Response:
        return web.json_response({"models": [{"name": MODEL, "model": MODEL}]})

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(text="".join(f"oracle:{k}_total {v}\n" for k, v in self.totals.items()))

    async def truth(self, _: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(self.truths), content_type="application/json")

    async def forget(self, _: web.Request) -> web.Response:
        self.truths.clear()
        return web.Response()


class Format:
    """One wire format. `visible` are the tokens that show text, `total` those that usage counts."""

    content_type = ""

    def __init__(self, body: dict[str, Any], script: Script) -> None:
        options = body.get("options", {})
        self.body, self.script = body, script
        asked = body.get("max_tokens") or body.get("max_completion_tokens") or options.get("num_predict")
        self.total = script.tokens or asked or 16
        self.visible = self.total - script.hidden_eos
        prompt = body.get("prompt") or " ".join(str(m["content"]) for m in body.get("messages", ()))
        self.prompt_tokens = len(prompt.split()) if isinstance(prompt, str) else len(prompt)
        self.chat = "messages" in body

    def text(self, request_id: int, k: int, tokens: int) -> str:
        """The first event names the request, so that a text can be matched to its truth."""
        return (f"#{request_id} " if k == 0 else self.script.word) + self.script.word * (tokens - 1)

    def frame(self, data: bytes) -> bytes:
        raise AssertionError

    def role(self) -> bytes:
        raise AssertionError

    def content(self, request_id: int, k: int, tokens: int, done: int) -> bytes:
        raise AssertionError

    def ending(self, with_usage: bool) -> list[bytes]:
        raise AssertionError

    def marker(self) -> bytes:
        return b""

    def error(self, message: str) -> dict[str, Any]:
        return {"error": {"message": message}}


class OpenAiFormat(Format):
    content_type = "text/event-stream"

    def frame(self, data: bytes) -> bytes:
        newline = self.script.newline.encode()
        return b"data: " + data + newline * 2

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        event = {
            "id": "cmpl-0",
            "object": "chat.completion.chunk" if self.chat else "text_completion",
            "created": 0,
            "model": MODEL,
            "choices": choices,
            **more,
        }
        if self.script.padding:
            event["padding"] = "x" * self.script.padding
        return self.frame(orjson.dumps(event))

    def role(self) -> bytes:
        said = {"delta": {"role": "assistant", "content": ""}} if self.chat else {"text": ""}
        return self._event([{"index": 0, **said, "finish_reason": None}])

    def content(self, request_id: int, k: int, tokens: int, done: int) -> bytes:
        text = self.text(request_id, k, tokens)
        key = "reasoning_content" if k < self.script.reasoning else "content"
        said: dict[str, Any] = {"delta": {key: text}} if self.chat else {"text": text}
        more: dict[str, Any] = {}
        asked = (self.body.get("stream_options") or {}).get("continuous_usage_stats")
        match self.script.detail:
            case "asked" if asked:
                more["usage"] = self._usage(done)
            case "usage":
                more["usage"] = self._usage(done)
            case "token_ids":
                said["token_ids"] = list(range(tokens))
            case "logprobs":
                said["logprobs"] = {"content": [{"token": "t"}] * tokens} if self.chat else {"tokens": ["t"] * tokens}
            case "timings":
                more["timings"] = {"predicted_n": done, "predicted_per_second": 1e3 / self.script.gap_ms}
        return self._event([{"index": 0, **said, "finish_reason": None}], **more)

    def _usage(self, done: int) -> dict[str, Any]:
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": done,
            "total_tokens": self.prompt_tokens + done,
        }
        if self.script.cached is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self.script.cached}
        return usage

    def ending(self, with_usage: bool) -> list[bytes]:
        said: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        reason = "stop" if self.script.hidden_eos else "length"
        events = [self._event([{"index": 0, **said, "finish_reason": reason}])]
        if with_usage:
            events.append(self._event([], usage=self._usage(self.total)))
        return events

    def marker(self) -> bytes:
        return self.frame(b"[DONE]")


class OllamaFormat(Format):
    content_type = "application/x-ndjson"

    def frame(self, data: bytes) -> bytes:
        return data + self.script.newline.encode()

    def _line(self, text: str, done: bool = False, **more: Any) -> bytes:
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"response": text}
        line = {"model": MODEL, "created_at": "2026-01-01T00:00:00Z", **said, "done": done, **more}
        return self.frame(orjson.dumps(line))

    def role(self) -> bytes:
        return self._line("")

    def content(self, request_id: int, k: int, tokens: int, done: int) -> bytes:
        return self._line(self.text(request_id, k, tokens))

    def ending(self, with_usage: bool) -> list[bytes]:
        usage = {"prompt_eval_count": self.prompt_tokens, "eval_count": self.total} if with_usage else {}
        seconds = self.total * self.script.gap_ms / 1e3
        return [self._line("", True, done_reason="length", eval_duration=int(seconds * 1e9), **usage)]

    def error(self, message: str) -> dict[str, Any]:
        return {"error": message}


async def sleep_until(due: float) -> None:
    """Sleep to the last whole millisecond before `due` (timers of the loop tick in those), then yield until it."""
    while (left := due - clock()) > 0:  # noqa: ASYNC110 - nothing to wait for but time
        await asyncio.sleep(left - 0.001 if left > 0.001 else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0: any free one; printed as the first line of stdout")
    parser.add_argument("--slots", type=int, default=10_000, help="requests served at a time; the others queue")
    for f in dataclasses.fields(Script):
        flag = "--" + f.name.replace("_", "-")
        if isinstance(f.default, bool):
            parser.add_argument(flag, action="store_true")
        elif f.name == "fault":
            parser.add_argument(flag, choices=FAULTS, default="")
        else:
            parser.add_argument(flag, type=int if f.default is None else type(f.default), default=f.default)
    arguments = vars(parser.parse_args())
    port, slots = arguments.pop("port"), arguments.pop("slots")
    asyncio.run(serve_forever(port, slots, Script(**arguments)))


async def serve_forever(port: int, slots: int, script: Script) -> None:
    runner = web.AppRunner(Oracle(script, slots).app(), access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    # The parent holds our stdin: when it is gone, so are we.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    main()
