"""A minimal OpenAI-compatible server on transformers: the baseline, and nothing an inference engine adds.

No batching, no paging, no prefix cache: requests wait in a line and one worker thread answers them one at a time.
That is the honest starting point, for it is what a model behind a web framework does. Within a request it is not
handicapped: it keeps a KV cache, computes only the last position's logits and streams every token.

Wire format: platform.openai.com/docs/api-reference (completions, chat, streaming with usage). Parameters that change
the answer and are not implemented are refused with 400, never ignored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web

from labs_helpers.engines.generation import Piece, Request, generate

REFUSED = {
    "n": 1,
    "best_of": 1,
    "top_p": 1,
    "top_k": -1,
    "logprobs": None,
    "echo": False,
    "suffix": None,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": None,
    "tools": None,
    "response_format": None,
}
"""Parameters that would change the answer, with the one value that does not."""
COUNTERS = ("prompt_tokens", "generation_tokens", "requests", "prefill_seconds", "decode_seconds")


class Baseline:
    """The model, the line of waiting requests, and the running totals."""

    def __init__(self, folder: Path, name: str, dtype: str, max_model_len: int) -> None:
        import torch
        from prometheus_client import CollectorRegistry, Counter, Gauge
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name, self.created = name, int(time.time())
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
        ).eval()
        self.max_model_len = min(max_model_len, self.model.config.max_position_embeddings)
        ends = self.model.generation_config.eos_token_id
        self.end_ids = frozenset([ends] if isinstance(ends, int) else ends or [])
        self.worker = ThreadPoolExecutor(1)
        self.registry = CollectorRegistry()
        self.totals = {key: Counter(f"baseline:{key}", f"{key} so far", registry=self.registry) for key in COUNTERS}
        self.waiting = Gauge("baseline:requests_waiting", "requests in line or being answered", registry=self.registry)

    def decode(self, ids: Any) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    async def pieces(self, request: Request) -> AsyncIterator[Piece]:
        """Answer in the worker thread; leaving the iteration early stops it before its next token."""
        loop, queue, gone = asyncio.get_running_loop(), asyncio.Queue[Piece | BaseException | None](), threading.Event()

        def work() -> None:
            last: Piece | BaseException | None = None
            try:
                for number, piece in enumerate(generate(self.model, self.decode, request, self.end_ids, gone.is_set)):
                    self._count(request, piece, first=number == 0)
                    loop.call_soon_threadsafe(queue.put_nowait, piece)
            except Exception as error:  # the client must learn of it, whatever it was
                last = error
            loop.call_soon_threadsafe(queue.put_nowait, last)

        self.waiting.inc()
        job = loop.run_in_executor(self.worker, work)
        try:
            while isinstance(piece := await queue.get(), Piece):
                yield piece
            if piece is not None:
                raise piece
        finally:
            gone.set()
            job.cancel()
            self.waiting.dec()

    def _count(self, request: Request, piece: Piece, first: bool) -> None:
        """Before the piece is sent, so that a client who has read its answer finds it counted."""
        if first:
            self.totals["prompt_tokens"].inc(len(request.prompt))
        self.totals["generation_tokens"].inc()
        self.totals["prefill_seconds"].inc(piece.prefill_s)
        self.totals["decode_seconds"].inc(piece.decode_s)
        if piece.finish:
            self.totals["requests"].inc()

    def read(self, body: dict[str, Any], chat: bool) -> Request:
        """A request from its JSON.

        Raises:
            ValueError: something in it cannot be done; the text is for the client.
            LookupError: it asks for another model.
        """
        if body.get("model", self.name) != self.name:
            raise LookupError(f"the model {body['model']!r} does not exist; this server has {self.name!r}")
        for key, harmless in REFUSED.items():
            if body.get(key) not in (None, harmless):
                raise ValueError(f"{key}={body[key]!r} is not supported by this server")
        prompt = self._chat_prompt(body.get("messages")) if chat else self._prompt(body.get("prompt"))
        if not prompt:
            raise ValueError("the prompt is empty")
        room = self.max_model_len - len(prompt)
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        limit = (room if chat else 16) if limit is None else limit
        if not isinstance(limit, int) or limit < 1:
            raise ValueError(f"max_tokens is {limit!r}, not a positive number")
        if limit > room:
            raise ValueError(f"{len(prompt)} prompt tokens and {limit} new ones exceed {self.max_model_len} positions")
        temperature, stop = body.get("temperature"), body.get("stop")
        return Request(
            prompt=tuple(prompt),
            max_tokens=limit,
            temperature=1.0 if temperature is None else float(temperature),
            seed=body.get("seed"),
            stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
            ignore_eos=bool(body.get("ignore_eos", False)),
        )

    def _prompt(self, prompt: Any) -> list[int]:
        if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
            prompt = prompt[0]
        if isinstance(prompt, str):
            return list(self.tokenizer(prompt)["input_ids"])
        if isinstance(prompt, list) and all(isinstance(token, int) for token in prompt):
            if any(not 0 <= token < self.model.config.vocab_size for token in prompt):
                raise ValueError(f"token ids must lie in 0..{self.model.config.vocab_size - 1}")
            return prompt
        raise ValueError("prompt must be one text or one list of token ids")

    def _chat_prompt(self, messages: Any) -> list[int]:
        if not isinstance(messages, list) or not all(isinstance(m, dict) and "role" in m for m in messages):
            raise ValueError("messages must be a list of {role, content}")
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


class Reply:
    """The JSON of one answer, whole or in chunks."""

    def __init__(self, server: Baseline, request: Request, chat: bool) -> None:
        self.chat, self.prompt_tokens = chat, len(request.prompt)
        self.head = {
            "id": ("chatcmpl-" if chat else "cmpl-") + uuid.uuid4().hex,
            "created": int(time.time()),
            "model": server.name,
        }

    def usage(self, tokens: int) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        }

    def whole(self, text: str, last: Piece) -> dict[str, Any]:
        body = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        kind = "chat.completion" if self.chat else "text_completion"
        choice = {"index": 0, **body, "finish_reason": last.finish, "logprobs": None}
        return {**self.head, "object": kind, "choices": [choice], "usage": self.usage(last.tokens)}

    def chunk(self, text: str, finish: str | None = None, role: bool = False) -> dict[str, Any]:
        delta = {"role": "assistant", "content": ""} if role else ({"content": text} if text else {})
        choice = {"index": 0, **({"delta": delta} if self.chat else {"text": text}), "finish_reason": finish}
        return self.chunks([choice])

    def chunks(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self.head, "object": "chat.completion.chunk" if self.chat else "text_completion", "choices": choices}


async def answer(server: Baseline, http: web.Request, chat: bool) -> web.StreamResponse:
    """One completion, streamed or whole."""
    try:
        body = await http.json()
        request = server.read(body, chat)
    except LookupError as error:
        return refusal(404, str(error))
    except (ValueError, TypeError, AttributeError) as error:
        return refusal(400, str(error))
    reply = Reply(server, request, chat)
    last, text = Piece("", 0), []
    if not body.get("stream"):
        async for last in server.pieces(request):
            text.append(last.text)
        return web.json_response(reply.whole("".join(text), last))

    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(http)

    async def send(event: dict[str, Any] | str) -> None:
        data = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
        await response.write(f"data: {data}\n\n".encode())

    if chat:
        await send(reply.chunk("", role=True))
    async for last in server.pieces(request):
        if last.text or last.finish:
            await send(reply.chunk(last.text, last.finish))
    if (body.get("stream_options") or {}).get("include_usage"):
        await send({**reply.chunks([]), "usage": reply.usage(last.tokens)})
    await send("[DONE]")
    return response


def refusal(status: int, message: str) -> web.Response:
    return web.json_response(
        {"error": {"message": message, "type": "invalid_request_error", "code": status}}, status=status
    )


def application(server: Baseline) -> web.Application:
    """The routes."""
    from prometheus_client import generate_latest

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def models(_: web.Request) -> web.Response:
        model = {
            "id": server.name,
            "object": "model",
            "created": server.created,
            "owned_by": "labs",
            "max_model_len": server.max_model_len,
        }
        return web.json_response({"object": "list", "data": [model]})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(server.registry), content_type="text/plain")

    async def completions(http: web.Request) -> web.StreamResponse:
        return await answer(server, http, chat=False)

    async def chat(http: web.Request) -> web.StreamResponse:
        return await answer(server, http, chat=True)

    app = web.Application(client_max_size=16 * 2**20)
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/v1/models", models),
            web.get("/metrics", metrics),
            web.post("/v1/completions", completions),
            web.post("/v1/chat/completions", chat),
        ]
    )
    return app


def main() -> None:
    """Load the model, then serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--max-model-len", type=int, required=True)
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    server = Baseline(args.model, args.name, args.dtype, args.max_model_len)
    web.run_app(
        application(server), host="127.0.0.1", port=args.port, print=None, handler_cancellation=True, shutdown_timeout=1
    )


if __name__ == "__main__":
    main()
