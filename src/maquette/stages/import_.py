"""`maquette import`: another program's training configuration as maquette's."""

from __future__ import annotations

from ..config.runs import ImportConfig
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore
from ..files import write_text
from ..interop.kohya import read as kohya
from ..interop.kohya.read import ImportResult


def run(config: ImportConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> ImportResult:
    """Translate, and write where `out` says. Raises MaquetteError for a file that is none, or asks for what is not."""
    if config.out is not None and config.out.exists():
        raise MaquetteError(f"{config.out} exists already; choose another --out.")
    result = kohya.run(config.file)
    if config.out is not None:
        write_text(config.out, result.toml)
        on_event(Event("saved", {"path": str(config.out)}))
    return result
