"""What an engine may be pointed at: a folder of safetensors or a GGUF file, checked before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labs_helpers.engines.base import ModelSpec
from labs_helpers.errors import LabsError

if TYPE_CHECKING:
    from labs_helpers.engines.base import Engine


def choose(engine: Engine, model: ModelSpec | str | Path | None, precision: str | None) -> ModelSpec:
    """The model to serve: the course model, a model described elsewhere, or a path.

    Raises:
        LabsError: a precision this engine does not serve here.
    """
    wanted = precision or (model.precision if isinstance(model, ModelSpec) else engine.precisions[0])
    if wanted not in engine.precisions:
        raise LabsError(
            f"{engine.title} does not serve {wanted} here",
            f"precisions of {engine.name}: {', '.join(engine.precisions)}",
        )
    if model is None:
        return engine.model(wanted)
    if isinstance(model, ModelSpec):
        if model.precision != wanted:
            raise LabsError(
                f"{model.name} is given as {model.precision}, but {wanted} was asked for",
                "give one of the two, or a model in that precision",
            )
        return model
    path = Path(model).expanduser().absolute()
    return ModelSpec(name=path.name, location=str(path), precision=wanted)


def require_folder(location: str) -> Path:
    """A folder with config.json, safetensors and a tokenizer.

    Raises:
        LabsError: it is not there or something is missing in it.
    """
    path = Path(location)
    if not path.is_dir():
        what = "is a file, not a model folder" if path.exists() else "does not exist"
        raise LabsError(
            f"the model {location} {what}", "give a folder that holds config.json, *.safetensors and tokenizer.json"
        )
    missing = [name for name in ("config.json", "tokenizer.json") if not (path / name).is_file()]
    if not any(path.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise LabsError(
            f"the model folder {path} lacks {', '.join(missing)}", "copy the whole folder; weights must be safetensors"
        )
    return path


def require_gguf(location: str) -> Path:
    """A GGUF file.

    Raises:
        LabsError: it is not there, or it is not a GGUF file.
    """
    path = Path(location)
    if not path.is_file():
        what = "is a folder, not a GGUF file" if path.is_dir() else "does not exist"
        raise LabsError(f"the model {location} {what}", "give a .gguf file; ./labs writes the course model's by itself")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise LabsError(f"{path} is not a GGUF file", "delete it if it was cut short; it is written again")
    return path
