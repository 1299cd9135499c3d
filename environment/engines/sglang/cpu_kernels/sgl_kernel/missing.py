"""Operations that SGLang imports on a CPU and that no lab's server calls: named, and refused by name when called."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


def missing(name: str) -> Callable[..., NoReturn]:
    """A function that can be imported as `name` and raises NotImplementedError with that name when it is called."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"{name} is not among the course's CPU kernels for SGLang")

    refuse.__name__ = refuse.__qualname__ = name
    return refuse
