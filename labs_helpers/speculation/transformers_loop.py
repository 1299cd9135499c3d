"""transformers' own speculation, `assistant_model`, as a baseline from outside: its loop, its cache, its modules."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from labs_helpers.speculation.loop import Generation


class HfAssisted:
    """`generate(assistant_model=...)` of transformers, fp32, greedy. Without an assistant it is their plain loop.

    Raises:
        LabsError: the shipped model is missing.
    """

    def __init__(self, assistant: Path | None, length: int = 4) -> None:
        from labs_helpers.model.scoring import load_model
        from labs_helpers.model.spec import shipped_dir

        self.name = "transformers, assisted" if assistant else "transformers, plain"
        self.model = load_model(shipped_dir())
        self.assistant = load_model(assistant) if assistant else None
        if self.assistant is not None:
            settings = self.assistant.generation_config
            settings.num_assistant_tokens, settings.num_assistant_tokens_schedule = length, "constant"
            settings.assistant_confidence_threshold = 0.0
        self._steps: list[tuple[int, int]] = []
        self.model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: Any, arguments: Any, named: dict[str, Any]) -> None:
        """Of every step of the target: cached tokens before it, and tokens read."""
        ids = named["input_ids"] if "input_ids" in named else arguments[0]
        self._steps.append((named["past_key_values"].get_seq_length(), ids.shape[1]))

    def answer(self, prompt_ids: Sequence[int], max_new_tokens: int) -> Generation:
        """The greedy answer, as `Generation` has it. The first step reads the prompt, and with an assistant already its
        first drafts; it counts as prefill where it reads the prompt alone, as a round otherwise."""
        import torch
        from transformers.utils import logging

        self._steps.clear()
        loud = logging.get_verbosity()
        logging.set_verbosity_error()  # its assisted loop warns about arguments that it passes to itself
        started = time.perf_counter()
        with torch.inference_mode():
            ids = self.model.generate(
                torch.tensor([list(prompt_ids)]),
                attention_mask=torch.ones(1, len(prompt_ids), dtype=torch.long),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                **({"assistant_model": self.assistant} if self.assistant is not None else {}),
            )
        seconds = time.perf_counter() - started
        logging.set_verbosity(loud)
        new = tuple(ids[0, len(prompt_ids) :].tolist())
        starts = [past for past, _ in self._steps] + [len(prompt_ids) + len(new) - 1]
        reads = [n for _, n in self._steps]
        reads[0] -= len(prompt_ids) - 1
        starts[0] = len(prompt_ids) - 1
        accepted = [max(0, b - a - 1) for a, b in pairwise(starts)]
        prefilled = int(reads[0] == 1)  # the prompt was read alone
        reads, accepted = reads[prefilled:], accepted[prefilled:]
        depths = tuple(n - 1 for n in reads)
        return Generation(new, len(reads), tuple(accepted), sum(depths), depths, seconds, 0.0, 0.0, seconds, prefilled)
