"""`maquette inspect`: what a file or folder is, in words and figures. Reads only, runs nothing that the file
contains. Pictures are looked at without torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.weights import InspectConfig
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore, until
from ..files import open_regular
from ..formats import pictures, png
from ..formats.picture_files import read_parameters

if TYPE_CHECKING:
    from .inspect_lora import LoraFacts

__all__ = ["InspectConfig", "InspectResult", "run"]


@dataclass
class InspectResult:
    """Everything found. Fields that do not apply are empty or None."""

    path: str
    sentence: str
    kind: str
    family: str | None = None
    variant: str = ""
    layout: str = ""
    prediction_type: str | None = None
    parts: dict[str, dict[str, int]] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    tensors: int = 0
    parameters: int = 0
    averaged_weights: bool = False
    size_bytes: int = 0
    hashes: dict[str, str | None] = field(default_factory=dict)
    lora: LoraFacts | None = None
    embedding: dict[str, int] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    family_tree: list[str] = field(default_factory=list)
    """What a merged model was made from, as indented lines."""
    problems: list[str] = field(default_factory=list)
    comparison: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def run(config: InspectConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> InspectResult:
    """Look at a file or folder. Raises MaquetteError when it is missing, broken or dangerous."""
    on_event = until(cancel, on_event)
    path = config.path
    if path.is_file() and (picture := _picture(path)):
        result = _inspect_picture(path, picture)
    else:
        from .inspect_weights import look

        result = look(path, config.hashes)
    if config.compare is not None:
        from . import inspect_compare

        result.comparison = inspect_compare.compare(path, result.kind, config.compare, config.picture, on_event)
    elif config.picture is not None:
        raise MaquetteError("--picture shows a comparison; name the other model or LoRA with --compare.")
    on_event(Event("done", {"path": result.path}))
    return result


def _picture(path: Path) -> str:
    """The format of a picture that can be opened, else ""."""
    with open_regular(path) as file:
        found = pictures.kind_of(file.read(16))
        if found not in pictures.FORMATS:
            return ""
        file.seek(0)
        try:
            pictures.open_picture(file)
        except Exception:  # Pillow raises a dozen kinds for damaged files
            return ""
    return found


def _inspect_picture(path: Path, format_name: str) -> InspectResult:
    """A picture that can be opened, with the parameters that A1111 and this program write into theirs."""
    result = InspectResult(str(path), "", "picture", size_bytes=path.stat().st_size)
    text = read_parameters(path)
    result.metadata = {png.KEY: text} if text else {}
    drawn = ", drawn with these parameters:" if text else ", not a model, LoRA or embedding."
    result.sentence = f"{path.name} is a picture ({format_name}){drawn}"
    return result
