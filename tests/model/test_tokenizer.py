"""The shipped tokenizer keeps every text, and the chat text is one and the same wherever it is made."""

from __future__ import annotations

from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from labs_helpers.model.architecture import SPEC
from labs_helpers.model.corpus import FULL_MIX, documents
from labs_helpers.model.corpus_slots import names
from labs_helpers.model.packing import encode
from labs_helpers.model.spec import shipped_dir
from labs_helpers.model.tokenizer import SPECIAL_TOKENS, fast_tokenizer, load_tokenizer, render_chat, train_tokenizer

MESSAGES = (("system", "Be brief."), ("user", "Größe 🚀 東京?\n\n  two"), ("assistant", "ok"), ("user", "43127"))


@given(text=st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_round_trip(text: str) -> None:
    tokenizer = fast_tokenizer(shipped_dir())
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if not any(special in text for special in SPECIAL_TOKENS):
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert all(0 <= i < SPEC.vocabulary for i in ids)


def test_transformers_reads_the_same_tokenizer() -> None:
    theirs, ours = load_tokenizer(shipped_dir()), fast_tokenizer(shipped_dir())
    for text in (
        "don't I'LL x=1  two\n\n\tthree",
        "naïve é é 🙂👩‍👩‍👧 한국어",
        "43127 10.0.0.1",
        render_chat(MESSAGES),
    ):
        assert theirs(text).input_ids == ours.encode(text).ids
        assert theirs.decode(theirs(text).input_ids) == text


def test_the_template_and_render_chat_agree() -> None:
    messages = [{"role": r, "content": c} for r, c in MESSAGES]
    template = load_tokenizer(shipped_dir()).apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert template == render_chat(MESSAGES)


def test_a_document_is_encoded_as_its_text() -> None:
    tokenizer = fast_tokenizer(shipped_dir())
    for document in islice(documents(11, FULL_MIX), 100):
        encoded = encode(tokenizer, document)
        assert list(encoded.ids) == tokenizer.encode(render_chat(document.turns, generate=False)).ids
        assert len(encoded.ids) == len(encoded.weights)


def test_digits_are_tokens_of_their_own() -> None:
    assert fast_tokenizer(shipped_dir()).encode("43127").tokens == list("43127")


def test_a_name_is_cut_alike_wherever_it_stands() -> None:
    """Nothing could be copied from a sentence into JSON otherwise, token by token."""
    tokenizer = fast_tokenizer(shipped_dir())
    for name in islice(names(5), 600):
        alone = tokenizer.encode(name).tokens
        for before in (" ", "\n", '"', "[", "(", ",", "/", "- ", "`"):
            assert tokenizer.encode(before + name).tokens[-len(alone) :] == alone, (before, name)


def test_training_gives_the_size_asked_for() -> None:
    texts = [render_chat(d.turns, generate=False) for d in islice(documents(0, FULL_MIX), 400)]
    tokenizer = train_tokenizer(texts, 512)
    assert tokenizer.get_vocab_size() == 512
    assert [tokenizer.id_to_token(i) for i in range(3)] == list(SPECIAL_TOKENS)
