"""What the stand-in does not have is refused with its own name, wherever it is asked for."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch


def test_an_unknown_operation_is_named_however_it_is_asked_for():
    import sgl_kernel

    with pytest.raises(AttributeError, match="no operation 'merge_state_v2'"):
        _ = sgl_kernel.merge_state_v2
    with pytest.raises(ImportError, match="merge_state_v2"):
        from sgl_kernel import merge_state_v2  # noqa: F401
    with pytest.raises(AttributeError, match="fused_experts_cpu"):
        _ = torch.ops.sgl_kernel.fused_experts_cpu
    with pytest.raises(ImportError, match="flash_attn"):
        importlib.import_module("sgl_kernel.flash_attn")
    assert not hasattr(torch.ops.sgl_kernel, "convert_weight_packed"), "SGLang would take this for AMX kernels"


def test_an_operation_that_is_imported_but_never_needed_raises_when_it_is_called():
    import sgl_kernel

    with pytest.raises(NotImplementedError, match=r"rotate_input_ids_cpu is not among"):
        sgl_kernel.rotate_input_ids_cpu(torch.zeros(3), 1, 2, 3, None)


def test_it_does_not_load_beside_a_gpu(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "sgl_kernel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ImportError, match="not for a machine with a GPU"):
        importlib.import_module("sgl_kernel")


def test_several_ranks_are_refused():
    with pytest.raises(NotImplementedError, match=r"initialize .* one rank, not 2"):
        torch.ops.sgl_kernel.initialize(2, 0)
    torch.ops.sgl_kernel.initialize(1, 0)


def test_threads_are_those_of_the_named_cores_that_may_be_used(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        torch.ops.sgl_kernel.init_cpu_threads_env("0-3,7")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_plugin_declares_what_torchvision_lacks():
    import labs_sglang_plugin

    labs_sglang_plugin.activate()
    labs_sglang_plugin.activate()  # once more is no error
    assert torch.ops.torchvision.nms.default._schema.name == "torchvision::nms"
    with pytest.raises(NotImplementedError):
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
