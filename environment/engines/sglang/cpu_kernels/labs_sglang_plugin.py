"""What SGLang loads at its own entry points, so that it serves with the course's CPU kernels and stays unmodified.

`activate` stands in the group `sglang.srt.platforms`, which every process asks first of all; `register` in
`sglang.srt.plugins`, which every process runs before it reads its arguments.
"""

from __future__ import annotations

import torch

_TORCHVISION = torch.library.Library("torchvision", "FRAGMENT")


def activate() -> None:
    """Let torchvision's Python part import; announce no platform of our own.

    Its wheel is linked to CUDA, so beside a CPU build of PyTorch its operators are not there, and it stops where it
    describes two of them. Declared and never implemented is enough: text models call neither.
    """
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            _TORCHVISION.define(schema)


def register() -> None:
    """Take SGLang's CPU backend, `intel_amx`, on any CPU: its kernels are ours and need no AMX instructions."""
    from sglang.srt.runtime_context import override_platform

    override_platform(has_amx=True).install()
