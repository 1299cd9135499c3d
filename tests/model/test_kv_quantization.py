"""Rounding of keys and values: what each scheme can store, and what it does to the shipped model."""

from __future__ import annotations

import pytest
import torch

from labs_helpers.errors import LabsError
from labs_helpers.model import kv_quantization as kv
from labs_helpers.model import workloads

HEADS, TOKENS, DIM = 2, 48, 16


def values(seed: int = 0) -> torch.Tensor:
    return torch.randn(HEADS, TOKENS, DIM, generator=torch.Generator().manual_seed(seed))


def test_an_error_is_never_more_than_half_a_step_of_its_own_scale():
    x = values()
    for scheme, axes in (("int8 per tensor", (0, 1, 2)), ("int8 per token", (2,)), ("int8 per channel", (1,))):
        step = x.abs().amax(dim=axes, keepdim=True) / 127
        assert ((kv.round_to(x, scheme) - x).abs() <= step / 2 + 1e-6).all()


@pytest.mark.parametrize("scheme", kv.SCHEMES)
def test_rounding_twice_changes_nothing_more(scheme):
    once = kv.round_to(values(), scheme)
    assert torch.allclose(kv.round_to(once, scheme), once, atol=1e-6)


@pytest.mark.parametrize(("scheme", "levels"), [("int8 per token", 255), ("int4 per token", 15)])
def test_a_row_holds_no_more_levels_than_its_bits(scheme, levels):
    x = torch.randn(1, 4, 4096, generator=torch.Generator().manual_seed(1))
    rounded = kv.round_to(x, scheme)
    for row in rounded[0]:
        assert len(row.unique()) <= levels


def test_fp8_values_are_those_of_e4m3_and_saturate():
    x = torch.tensor([[[0.3, 17.0, 1000.0, -1000.0]]])
    assert kv.round_to(x, "fp8").flatten().tolist() == [0.3125, 17.0 - 1.0, 448.0, -448.0]


def test_a_large_channel_hurts_a_scale_per_token_and_a_large_token_one_per_channel():
    channel, token = values(), values()
    channel[:, :, 3] *= 50
    token[:, 5, :] *= 50
    small = [i for i in range(DIM) if i != 3]

    def error(x, scheme, rows=slice(None), columns=slice(None)):
        return float((kv.round_to(x, scheme) - x)[:, rows][:, :, columns].square().mean())

    assert error(channel, "int8 per channel", columns=small) < error(channel, "int8 per token", columns=small) / 100
    others = [i for i in range(TOKENS) if i != 5]
    assert error(token, "int8 per token", rows=others) < error(token, "int8 per channel", rows=others) / 100


def test_stored_bytes_count_the_scales():
    assert kv.bytes_per_value("none", 64) == 2
    assert kv.bytes_per_value("fp8", 64) == 1
    assert kv.bytes_per_value("int8 per channel", 64) == 1
    assert kv.bytes_per_value("int8 per token", 64) == 1 + 4 / 64
    assert kv.bytes_per_value("int4 per token", 64) == 0.5 + 4 / 64


def test_an_unknown_scheme_is_refused():
    with pytest.raises(LabsError, match="int3 per token"):
        kv.round_to(values(), "int3 per token")


def test_on_the_shipped_model_fewer_bits_mean_a_larger_error_and_other_tokens():
    (text,) = workloads.held_out_texts(1, 160)
    plain, int8, fp8, int4 = kv.effects([text], ("none", "int8 per token", "fp8", "int4 per token"))
    assert (plain.key_error, plain.value_error, plain.agreement) == (0, 0, 1)
    assert int8.key_error < fp8.key_error < int4.key_error
    assert int8.value_error < fp8.value_error < int4.value_error
    assert int8.agreement > int4.agreement
    assert abs(int8.loss - plain.loss) < 0.05
    assert plain.tokens == 159


def test_keys_alone_leave_the_values_as_they_are():
    (text,) = workloads.held_out_texts(1, 96)
    (both,) = kv.effects([text], ("int4 per token",))
    (keys,) = kv.effects([text], ("int4 per token",), only="keys")
    (values_,) = kv.effects([text], ("int4 per token",), only="values")
    assert len({both.loss, keys.loss, values_.loss}) == 3


def test_what_is_cached_has_the_models_shape():
    from labs_helpers.model.architecture import SPEC

    (text,) = workloads.held_out_texts(1, 32)
    ((keys, cached),) = kv.keys_and_values([text])
    assert keys.shape == cached.shape == (SPEC.layers, SPEC.kv_heads, 32, SPEC.head_dim)
