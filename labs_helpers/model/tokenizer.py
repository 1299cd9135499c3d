"""The course model's tokenizer: byte-level BPE of 2,048 entries with the chat markers as special tokens.

The split pattern is the one llama.cpp calls `qwen2`, so that a GGUF of the model cuts text into the same tokens.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs_helpers.errors import LabsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

SPACE = "Ġ"
"""A space as byte-level BPE writes it."""

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

LEARNING_PATTERN = SPLIT_PATTERN.replace(r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{L}+")
"""Used to learn the merges only: the sign before a word stands apart, so that no merge joins it to a part of a word."""
WHOLE_WORDS = 3 / 16
"""Share of the entries that are a whole frequent word with the sign before it, mostly a space."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_OTHER_SCRIPTS = (
    "Größe, café, naïve, señor, Łódź, Ελλάδα, Москва, 東京, 日本語, 中文, 한국어, العربية, हिन्दी. "
    "🙂 🚀 ✅ → ≤ ≥ € £ °C µs – — “quoted” ‘so’ …"
)


def train_tokenizer(texts: Iterable[str], size: int, names: Iterable[str] = ()) -> Any:
    """Train the BPE on `texts`. Returns a `tokenizers.Tokenizer` of exactly `size` entries, special tokens first.

    A word is cut alike after a space, a quote, a bracket or a line's beginning: only whole frequent words are joined
    to the sign before them, and none with which one of `names` begins. Otherwise a name read in a sentence and
    written in JSON would share no token, and could not be copied token by token.
    """
    from tokenizers import Tokenizer

    texts, names = [*texts, _OTHER_SCRIPTS], list(names)
    wanted = round(size * WHOLE_WORDS)
    parts = _learned(texts, size - wanted)
    words = _frequent_words(texts, parts, names)[:wanted]
    if len(words) < wanted:  # a short text has few words
        parts = _learned(texts, size - len(words))
    built = json.loads(parts.to_str())
    built["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = SPLIT_PATTERN
    for sign, word in words:
        built["model"]["vocab"][sign + word] = len(built["model"]["vocab"])
        built["model"]["merges"].append([sign, word])
    return Tokenizer.from_str(json.dumps(built))


def _learned(texts: Iterable[str], size: int) -> Any:
    """Byte-level BPE in which no entry joins letters to what stands before the word."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LEARNING_PATTERN), behavior="isolated"),
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
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def _frequent_words(texts: Iterable[str], parts: Any, names: Iterable[str]) -> list[tuple[str, str]]:
    """(sign, word) by falling frequency, both entries of the tokenizer `parts`, and no name begins with the word."""
    from tokenizers import Regex, pre_tokenizers

    vocabulary, begins = parts.get_vocab(), {parts.encode(name).tokens[0] for name in names}

    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counted = Counter(piece for text in texts for piece, _ in cut.pre_tokenize_str(text))
    return [
        (piece[0], piece[1:])
        for piece, _ in counted.most_common()
        if (piece[0] == SPACE or not piece[0].isalnum()) and piece not in vocabulary
        if piece[1:].isascii() and piece[1:].isalpha() and piece[1:] in vocabulary and piece[1:] not in begins
    ]


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


def copy_tokenizer(source: Path, folder: Path) -> Any:
    """Copy the tokenizer of one model folder into another.

    Raises:
        LabsError: the first folder has none.
    """
    require_tokenizer(source)
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, folder / name)
    return fast_tokenizer(folder)


def require_tokenizer(folder: Path) -> None:
    """Refuse a model folder without a tokenizer.

    Raises:
        LabsError: a file is missing; the message names it.
    """
    for name in TOKENIZER_FILES:
        if not (folder / name).is_file():
            raise LabsError(f"{folder} holds no tokenizer: no {name}", "name a finished model's folder")


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
