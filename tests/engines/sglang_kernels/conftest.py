"""The CPU kernels of the SGLang server need only PyTorch: they are tested here, in the notebooks' environment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

KERNELS = Path(__file__).parents[3] / "environment" / "engines" / "sglang" / "cpu_kernels"


@pytest.fixture(scope="session", autouse=True)
def kernels_on_path() -> Iterator[None]:
    """`import sgl_kernel` finds ours; a GPU of the machine that runs the tests is not seen."""
    patch = pytest.MonkeyPatch()
    patch.setattr(torch.cuda, "is_available", lambda: False)
    sys.path.insert(0, str(KERNELS))
    yield
    sys.path.remove(str(KERNELS))
    patch.undo()


@pytest.fixture
def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(20261123)
