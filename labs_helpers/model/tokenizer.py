"""The course model's tokenizer: byte-level BPE of 2,048 entries with the chat markers as special tokens.

The split pattern is the one llama.cpp calls `qwen2`, so that a GGUF of the model cuts text into the same tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_OTHER_SCRIPTS = (
    "Größe, café, naïve, señor, Łódź, Ελλάδα, Москва, 東京, 日本語, 中文, 한국어, العربية, हिन्दी. "
    "🙂 🚀 ✅ → ≤ ≥ € £ °C µs – — “quoted” ‘so’ …"
)


def train_tokenizer(texts: Iterable[str], size: int) -> Any:
    """Train the BPE on `texts`. Returns a `tokenizers.Tokenizer` of exactly `size` entries, special tokens first."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator([*texts, _OTHER_SCRIPTS], trainer=trainer)
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path, max_length: int) -> None:
    """Write `tokenizer.json` and the configuration by which AutoTokenizer and the engines load it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    special = {"eos_token": TURN_END, "pad_token": END_OF_TEXT}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1) + "\n")


@lru_cache(maxsize=2)
def fast_tokenizer(folder: Path) -> Any:
    """The bare `tokenizers.Tokenizer` of a model folder: loads in milliseconds, without transformers."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer as transformers sees it."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def render_chat(messages: Iterable[tuple[str, str]], generate: bool = True) -> str:
    """(role, content) pairs as the text the model was trained on; with `generate`, up to where it answers.

    The same text as the chat template's, which a test holds to.
    """
    text = "".join(f"{TURN_START}{role}\n{content}{TURN_END}\n" for role, content in messages)
    return text + (f"{TURN_START}assistant\n" if generate else "")
