"""What engines are told about a draft, and how their counters are read."""

from __future__ import annotations

import pytest

from labs_helpers.engines import options, sglang, vllm
from labs_helpers.engines.base import Counters
from labs_helpers.errors import LabsError
from labs_helpers.speculation import serving


def test_vllm_is_told_the_draft_and_its_length() -> None:
    for method in ("medusa", "eagle", "eagle3", "draft_model", "ngram"):
        told = serving.vllm_config(method, precision="bf16")
        assert told["method"] == method and told["num_speculative_tokens"] > 1
        assert ("model" in told) == (method != "ngram")
        assert options.read(vllm.VLLMOptions, "vllm", {"speculative": told}).speculative == told
    assert serving.vllm_config("medusa")["num_speculative_tokens"] == serving.medusa_heads()
    assert serving.vllm_config("eagle3", steps=3)["num_speculative_tokens"] == 3


def test_sglang_is_told_chain_or_tree() -> None:
    chain = serving.sglang_config("EAGLE3", steps=5)
    assert (chain["num_steps"], chain["eagle_topk"], chain["num_draft_tokens"]) == (5, 1, 6)
    tree = serving.sglang_config("EAGLE3", steps=4, topk=3, nodes=8)
    assert (tree["eagle_topk"], tree["num_draft_tokens"]) == (3, 8)
    for algorithm in ("EAGLE3", "STANDALONE", "NGRAM"):
        told = serving.sglang_config(algorithm, precision="bf16")
        options.read(sglang.SGLangCPUOptions, "sglang", {"speculative": told})


def test_what_an_engine_does_not_have_is_said() -> None:
    with pytest.raises(LabsError, match="no 'MEDUSA'"):
        serving.sglang_config("MEDUSA")
    with pytest.raises(LabsError, match="no method 'lookahead'"):
        serving.vllm_config("lookahead")
    with pytest.raises(LabsError, match="Medusa heads, not 3"):
        serving.vllm_config("medusa", steps=3)


def test_tokens_per_step_leave_prefill_out() -> None:
    name, place = "vllm:spec_decode_num_drafts_total", "vllm:spec_decode_num_accepted_tokens_per_pos_total"
    accepted = "vllm:spec_decode_num_accepted_tokens_total"
    before = Counters(generation_tokens=10, requests=1, raw={name: 4.0, f'{place}{{position="0"}}': 3.0})
    after = Counters(generation_tokens=70, requests=5, raw={name: 18.0, f'{place}{{position="0"}}': 13.5})
    assert serving.tokens_per_step(before, after) == (60 - 4) / 14
    assert serving.position_rates(before, after, 2) == [0.75, 0.0]
    sglang_after = Counters(generation_tokens=70, requests=5, raw={"sglang:spec_verify_calls_total": 28.0})
    assert serving.tokens_per_step(Counters(), sglang_after) == 65 / 28
    lookup = Counters(generation_tokens=61, requests=1, raw={name: 4.0, accepted: 10.0})
    assert serving.tokens_per_step(Counters(), lookup) == 60 / 50, "most passes had nothing to verify"
    assert serving.tokens_per_step(after, after) is None, "nothing was drafted in between"
