"""Settings that were changed in the page: settings.json in the data folder, which anybody may have written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.studio import StudioSettings
from ..errors import MaquetteError
from ..files import write_json
from ..limits import CONFIGURATION_BYTES
from ..parsing import read_object
from .library import Library

FILE = "settings.json"


def with_kept(settings: StudioSettings) -> tuple[StudioSettings, list[str]]:
    """The settings with what an earlier studio on this folder was told, and a sentence for what of it is not used.

    What `settings` was given, such as an option of the command line, stays. A base counts only if it is one of those
    that the studio offers by itself: the file leads to no other place. A server without pages takes nothing from it.
    """
    if not settings.has_pages:
        return settings, []
    try:
        read = _read(settings.folder)
    except MaquetteError as error:
        return settings, [f"The settings of the page could not be read and are as usual again: {error}"]
    kept: dict[str, Any] = {}
    notes = []
    api, base = read.get("api"), read.get("base")
    if isinstance(api, bool):
        kept["api"] = api
    elif api is not None:
        notes.append(f'{settings.folder / FILE}: "api" is neither true nor false and was not read.')
    if base is not None and "base" not in settings.model_fields_set:
        if isinstance(base, str) and base in {
            model.path for model in Library([settings.bases_folder], [], settings.base).models()
        }:
            kept["base"] = base
        else:
            notes.append(f"The base chosen in the settings is not there any more; it is {settings.base} again.")
    return settings.model_copy(update={k: v for k, v in kept.items() if k not in settings.model_fields_set}), notes


def keep(folder: Path, changes: Mapping[str, Any]) -> None:
    """Keep changed settings for the studios that come; those of other keys stay. The file appears whole."""
    try:
        before = _read(folder)
    except MaquetteError:  # with_kept has told of it
        before = {}
    write_json(folder / FILE, before | dict(changes))


def _read(folder: Path) -> dict[str, Any]:
    return read_object(folder / FILE, CONFIGURATION_BYTES) if (folder / FILE).exists() else {}
