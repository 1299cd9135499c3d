"""medusa-llm 0.1, the package of Medusa's authors, in an environment of its own: a library without a server.

github.com/FasterDecoding/Medusa, release 0.1: one sequence, a tree that is a product of each head's best tokens. It
needs transformers 4.36 to 4.57 and is driven here by one short program, which gets its work as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labs_helpers.engines import install
from labs_helpers.engines.options import default_threads
from labs_helpers.engines.run import NOT_INHERITED
from labs_helpers.errors import LabsError

NAME = "medusa-llm"
LAST_LINES = 8

PROGRAM = """
import json, sys, time
import torch
from medusa.model.medusa_model import MedusaConfig, MedusaModel, ResBlock

job = json.load(sys.stdin)
torch.set_num_threads(job["threads"])
model = MedusaModel.from_pretrained(".", torch_dtype=torch.float32)
# release 0.1 puts one block several times into a head; ours are several blocks
for head in model.medusa_head:
    for i in range(len(head) - 1):
        head[i] = ResBlock(model.hidden_size)
heads = torch.load("medusa_lm_head.pt")
model.medusa_head.load_state_dict(heads)  # strict, unlike its own loader
model.eval()


class Ids:
    \"\"\"Stands for its tokenizer, of which it asks the text: keeps the ids.\"\"\"

    def __init__(self, eos):
        self.eos_token_id, self.ids = eos, []

    def decode(self, ids, **_):
        self.ids = ids.tolist()
        return ""


done = []
for prompt in job["prompts"]:
    model.tokenizer = Ids(model.tokenizer.eos_token_id)
    began, steps = time.perf_counter(), 0
    with torch.inference_mode():
        for _ in model.medusa_generate(torch.tensor([prompt]), temperature=0.0, medusa_choices=job["choices"]):
            steps += 1
            if len(model.tokenizer.ids) >= job["max_new_tokens"]:
                break
    ids = model.tokenizer.ids
    end = ids.index(model.tokenizer.eos_token_id) + 1 if model.tokenizer.eos_token_id in ids else len(ids)
    done.append({"ids": ids[: min(end, job["max_new_tokens"])], "written": len(ids), "steps": steps,
                 "seconds": time.perf_counter() - began})
json.dump(done, open(job["answer"], "w"))
"""


@dataclass(frozen=True)
class Generated:
    """One answer. `ids` are new tokens up to the end marker or the limit."""

    ids: tuple[int, ...]
    written: int
    """Tokens its steps brought, those past the end among them."""
    steps: int
    """Passes through the model after prefill."""
    seconds: float
    """With prefill."""

    @property
    def tokens_per_step(self) -> float:
        return self.written / max(1, self.steps)


def version() -> str:
    """The installed version.

    Raises:
        LabsError: it is not installed.
    """
    return install.package_version(NAME, NAME)


def generate(
    folder: Path,
    prompts: Sequence[Sequence[int]],
    *,
    choices: Sequence[int],
    max_new_tokens: int = 96,
    threads: int | None = None,
    timeout_s: float = 300.0,
) -> list[Generated]:
    """Greedy answers of medusa-llm, in fp32, one after another.

    Args:
        folder: what `speculation.export.medusa_llm` wrote.
        prompts: token ids.
        choices: 1, then how many of each head's best tokens are tried; the tree is their product.

    Raises:
        LabsError: it is not installed, failed (with its last lines), or took too long.
    """
    import tempfile

    environment = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory(prefix="labs-medusa-") as scratch:
        answer = Path(scratch) / "answer.json"
        job = {
            "prompts": [list(prompt) for prompt in prompts],
            "choices": list(choices),
            "max_new_tokens": max_new_tokens,
            "threads": threads or default_threads(),
            "answer": str(answer),
        }
        try:
            done = subprocess.run(
                [install.python(NAME), "-P", "-c", PROGRAM],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                env=environment,
                cwd=folder,  # its configuration names the model beside it
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LabsError(f"medusa-llm took longer than {timeout_s:g} s", "give fewer prompts or more time") from None
        if done.returncode != 0 or not answer.exists():
            last = "\n".join(done.stderr.rstrip().splitlines()[-LAST_LINES:])
            raise LabsError(f"medusa-llm failed:\n{last}", f"./labs engines install {NAME} --force")
        return [Generated(**{**one, "ids": tuple(one["ids"])}) for one in json.loads(answer.read_text())]
