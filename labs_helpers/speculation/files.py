"""Drafts on disk: config.json and model.safetensors in a folder, bf16, each in the layout that an engine loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs_helpers.errors import LabsError

if TYPE_CHECKING:
    import torch


def write_draft(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write a draft; floating-point tensors become bf16.

    Raises:
        LabsError: the folder cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    kept = {
        name: (t.detach().to(torch.bfloat16) if t.is_floating_point() else t.detach()).contiguous()
        for name, t in tensors.items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / ".model.safetensors"
        save_file(kept, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors writes for the owner only
        temporary.replace(folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    except (OSError, RuntimeError) as error:
        raise LabsError(f"cannot write {folder}: {error}", "free some disk space or name another folder") from error


def read_draft(folder: Path, architecture: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The configuration and the tensors of a draft.

    Raises:
        LabsError: the folder holds no draft, or one of another architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise LabsError(
            f"{folder} holds no draft: {error}",
            "restore it with `git checkout`, or train it: ./labs model train --help",
        ) from error
    found = config.get("architectures")
    if found != [architecture]:
        raise LabsError(f"{folder} holds {found}, not {architecture}", "name the folder of a draft of that kind")
    return config, tensors
