"""Ollama by its wire format: a server that is there is found, given the model, and its own times are read."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.engines import ollama, process
from labs_helpers.engines.base import ModelSpec
from labs_helpers.errors import LabsError

HERE = SimpleNamespace(arch="x86_64", gpu=None)
ANSWER = [
    {"model": "m", "response": "Grüße", "done": False},
    {"model": "m", "response": " 😀", "done": False},
    {
        "model": "m",
        "response": "",
        "done": True,
        "done_reason": "stop",
        "total_duration": 5_000_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": 26,
        "prompt_eval_duration": 130_000_000,
        "eval_count": 298,
        "eval_duration": 4_000_000_000,
    },
]


class FakeOllama(BaseHTTPRequestHandler):
    """Answers as docs/api.md says; keeps what it was told on the server object."""

    def do_HEAD(self) -> None:
        self.reply(200 if self.path.rsplit("/", 1)[1] in self.server.blobs else 404)

    def do_GET(self) -> None:
        if self.path == "/api/version":
            self.reply(200, {"version": "0.12.3"})
        elif self.path == "/api/tags":
            self.reply(200, {"models": [{"name": name} for name in self.server.models]})
        else:
            self.reply(404)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/api/blobs/"):
            digest = self.path.rsplit("/", 1)[1]
            whole = digest == "sha256:" + hashlib.sha256(data).hexdigest()
            self.server.blobs |= {digest} if whole else set()
            return self.reply(201 if whole else 400)
        body = json.loads(data)
        if self.path == "/api/create":
            known = set(body["files"].values()) <= self.server.blobs
            self.server.models |= {body["model"]} if known else set()
            return self.reply(200 if known else 400, {"status": "success"} if known else {"error": "no blob"})
        if self.path == "/v1/completions":
            return self.reply(200 if body["model"] in self.server.models else 404, {"choices": []})
        self.server.asked = body
        self.send_response(200)
        self.end_headers()
        text = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in self.server.answer)
        for at in range(0, len(text), 7):  # cut through lines and characters alike
            self.wfile.write(text[at : at + 7])
            self.wfile.flush()

    def reply(self, status: int, body: dict | None = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeOllama) as started:
        started.blobs, started.models, started.answer, started.asked = set(), set(), ANSWER, None
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{started.server_address[1]}")
        threading.Thread(target=started.serve_forever, daemon=True).start()
        yield started
        started.shutdown()


@pytest.fixture
def url(server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def gguf(tmp_path) -> ModelSpec:
    (tmp_path / "m.gguf").write_bytes(b"GGUF and more")
    return ModelSpec("course", str(tmp_path / "m.gguf"), "fp32")


@pytest.fixture
def nowhere(monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    monkeypatch.setenv("PATH", "/nowhere")


def test_a_running_server_is_found_with_its_version(server, url):
    engine = ollama.Ollama()
    assert engine.availability(HERE).ok
    assert engine.running_at() == url
    assert engine.version() == "0.12.3"


def test_without_server_and_program_it_is_unavailable_with_a_remedy(nowhere):
    found = ollama.Ollama().availability(HERE)
    assert not found.ok and "ollama.com/download" in found.remedy
    with pytest.raises(LabsError, match="not installed"):
        ollama.Ollama().version()


def test_serving_attaches_imports_the_model_and_leaves_the_server_running(server, url, gguf):
    with process.serve("ollama", model=gguf) as started:
        assert started.base_url == url
        assert server.models == {"course"}
        assert ollama.tags(url) == ["course"]
        assert started.version == "0.12.3"
    assert ollama.Ollama().running_at() == url, "a server that somebody else started is not ours to stop"


def test_a_file_it_has_already_is_not_sent_again(server, url, gguf):
    ollama.Ollama().load(url, gguf)
    blobs = set(server.blobs)
    (sent := FakeOllama.do_POST)
    paths = []

    def watch(self: FakeOllama) -> None:
        paths.append(self.path)
        sent(self)

    FakeOllama.do_POST = watch
    try:
        ollama.Ollama().load(url, gguf)
    finally:
        FakeOllama.do_POST = sent
    assert paths == ["/api/create"] and server.blobs == blobs


async def test_text_and_the_servers_own_times_come_from_one_stream(server, url):
    got = [item async for item in ollama.generate(url, "m", "hi", max_tokens=9)]
    assert got[:-1] == ["Grüße", " 😀"]
    assert got[-1] == ollama.Timings(
        total_seconds=5.0,
        load_seconds=0.001,
        prompt_tokens=26,
        prefill_seconds=0.13,
        generation_tokens=298,
        decode_seconds=4.0,
    )
    assert server.asked["options"] == {"num_predict": 9, "temperature": 0.0}


async def test_times_that_are_absent_are_unknown(server, url):
    server.answer = [{"response": "x", "done": True}]
    *_, last = [item async for item in ollama.generate(url, "m", "hi", max_tokens=1)]
    assert last == ollama.Timings(None, None, None, None, None, None)


async def test_a_stream_without_an_end_is_an_error(server, url):
    server.answer = ANSWER[:2]
    with pytest.raises(LabsError, match="broke off"):
        [item async for item in ollama.generate(url, "m", "hi", max_tokens=1)]


async def test_an_error_in_the_stream_is_passed_on(server, url):
    server.answer = [{"error": "model 'm' not found"}]
    with pytest.raises(LabsError, match="model 'm' not found"):
        [item async for item in ollama.generate(url, "m", "hi", max_tokens=1)]


async def test_no_server_is_an_error(nowhere):
    with pytest.raises(LabsError, match="does not answer"):
        [item async for item in ollama.generate("http://127.0.0.1:1", "m", "hi", max_tokens=1)]


@given(st.lists(st.dictionaries(st.text(), st.text(), max_size=3), max_size=5), st.integers(1, 9), st.booleans())
async def test_lines_are_the_same_however_the_stream_is_cut(objects, size, ends_with_newline):
    data = b"\n".join(json.dumps(o).encode() for o in objects) + (b"\n" if ends_with_newline else b"")

    class Content:
        async def iter_any(self):
            for at in range(0, len(data), size):
                yield data[at : at + size]

    assert [o async for o in ollama.lines(Content())] == objects
