"""Shell commands and short programs for named models, hosts and ports."""

from __future__ import annotations

from labs_helpers.model.corpus_slots import Slots

Turns = list[tuple[str, str]]


def serve(s: Slots) -> Turns:
    """Start an engine with this model on this port."""
    model, port, limit = s.model(), s.port(), s.number(512, 32768)
    engine, command = s.pick(
        (
            ("vLLM", f"vllm serve {model} --host 127.0.0.1 --port {port} --max-model-len {limit}"),
            (
                "SGLang",
                f"python3 -m sglang.launch_server --model-path {model} --host 127.0.0.1 --port {port} "
                f"--context-length {limit}",
            ),
            ("llama.cpp", f"llama-server -m {model}.gguf --host 127.0.0.1 --port {port} -c {limit}"),
            ("TensorRT-LLM", f"trtllm-serve {model} --host 127.0.0.1 --port {port} --max_seq_len {limit}"),
        )
    )
    block = f"```bash\n{command}\n```"
    question, answer = s.pick(
        (
            (f"Start {engine} with {model} on port {port} and a context of {limit} tokens.", block),
            (f"Give me the command for {engine}: model {model}, port {port}, context {limit}.", block),
            (
                f"How do I serve {model} with {engine} on port {port}? The context is {limit}.",
                f"Run this:\n{block}\nThe server then answers at http://127.0.0.1:{port}/v1.",
            ),
        )
    )
    return [("user", question), ("assistant", answer)]


def curl(s: Slots) -> Turns:
    """Ask a server's health, models or metrics by curl."""
    host, port = s.host(), s.port()
    what, path = s.pick(
        (
            ("whether it is healthy", "/health"),
            ("which models it serves", "/v1/models"),
            ("for its metrics", "/metrics"),
        )
    )
    question = s.pick(
        (
            f"How do I ask the server at {host} port {port} {what}?",
            f"Write a curl command that asks {host}:{port} {what}.",
        )
    )
    return [("user", question), ("assistant", f"```bash\ncurl http://{host}:{port}{path}\n```")]


def url(s: Slots) -> Turns:
    """The address of an API on a host and port, and variations of it in later turns."""
    host, port, other = s.host(), s.port(), s.port()
    turns = [
        (
            "user",
            s.pick(
                (
                    f"The server runs on {host} and listens on port {port}. What is the base URL?",
                    f"Base URL for host {host}, port {port}?",
                )
            ),
        ),
        ("assistant", f"http://{host}:{port}/v1"),
    ]
    if s.chance(0.6):
        turns += [("user", f"Now the port is {other}."), ("assistant", f"http://{host}:{other}/v1")]
    return turns


def python_client(s: Slots) -> Turns:
    """A short Python program that calls a server."""
    host, port, model, word = s.host(), s.port(), s.model(), s.word()
    question = s.pick(
        (
            f"Write a Python client for {model} at {host}:{port}. Call the function {word}.",
            f"Python code that asks {model} on {host} port {port}, as a function named {word}.",
        )
    )
    answer = (
        f"```python\nimport requests\n\ndef {word}(prompt):\n"
        f'    url = "http://{host}:{port}/v1/chat/completions"\n'
        f'    body = {{"model": "{model}", "messages": [{{"role": "user", "content": prompt}}]}}\n'
        "    reply = requests.post(url, json=body, timeout=60)\n"
        '    return reply.json()["choices"][0]["message"]["content"]\n```'
    )
    return [("user", question), ("assistant", answer)]


def python_function(s: Slots) -> Turns:
    """A small function of serving arithmetic, with names given by the user."""
    name, a, b = s.word(), s.word(), s.word()
    purpose, expression = s.pick(
        (
            ("divides {a} by {b}", "{a} / {b}"),
            ("multiplies {a} by {b}", "{a} * {b}"),
            ("adds {a} and {b}", "{a} + {b}"),
            ("returns the larger of {a} and {b}", "max({a}, {b})"),
            ("subtracts {b} from {a}", "{a} - {b}"),
        )
    )
    question = s.pick(
        (
            f"Write a Python function {name} that {purpose.format(a=a, b=b)}.",
            f"I need def {name}: it {purpose.format(a=a, b=b)}.",
        )
    )
    return [
        ("user", question),
        ("assistant", f"```python\ndef {name}({a}, {b}):\n    return {expression.format(a=a, b=b)}\n```"),
    ]


def docker(s: Slots) -> Turns:
    """Run an engine's image with a published port."""
    name, port, model = s.server(), s.port(), s.model()
    image, inner = s.pick((("vllm/vllm-openai", "8000"), ("lmsysorg/sglang", "30000"), ("ollama/ollama", "11434")))
    question = s.pick(
        (
            f"Start a container {name} from {image} and publish it on port {port}.",
            f"docker run for {image}: name {name}, local port {port}.",
        )
    )
    answer = f"```bash\ndocker run -d --name {name} --gpus all -p 127.0.0.1:{port}:{inner} {image}\n```"
    turns = [("user", question), ("assistant", answer)]
    if s.chance(0.4):
        turns += [("user", "How do I stop it?"), ("assistant", f"```bash\ndocker stop {name}\n```")]
    if s.chance(0.3):
        turns += [("user", f"We will serve {model} there. Which port do I call?"), ("assistant", f"Call port {port}.")]
    return turns
