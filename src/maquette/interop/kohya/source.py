"""Where a Kohya configuration stands: a script that calls the trainer, its TOML file, or the GUI's JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ... import files, limits, parsing
from ...errors import MaquetteError
from ...formats import shells
from ...trainers.kohya import OPTIONS
from ...trainers.kohya_gui import FIELDS, RENAMED
from . import form as kohya_form
from .words import options, script_name

ENCODINGS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass
class Source:
    """Options as the trainer would be given them. script: "" where the file does not say which one.

    files: texts that the script writes before it calls the trainer. template: whether photos may be named later.
    """

    path: Path
    given: dict[str, Any]
    script: str = ""
    files: dict[str, str] = field(default_factory=dict)
    processes: int = 1
    template: bool = True
    notes: list[str] = field(default_factory=list)  # what has no equal, in whole lines

    def text_of(self, name: str) -> str | None:
        """The text of a file that an option names: written by the script, else lying where it says or beside it."""
        if name in self.files:
            return self.files[name]
        plain = name.replace("\\", "/")
        for place in (Path(plain), self.path.parent / plain, self.path.parent / PurePosixPath(plain).name):
            if files.is_regular(place):
                return read_text(place)
        return None


def read(path: str | Path) -> Source:
    """Read the file. Raises MaquetteError when it is none of the three."""
    path = Path(path)
    text = read_text(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        values = parsing.parse_json(text, str(path))
        if not isinstance(values, dict):
            raise MaquetteError(f"{path} holds no keys and values.")
        _require_known(values, path)
        form = kohya_form.read(values, str(path))
        return Source(path, form.given, form.script, processes=form.processes, notes=form.notes)
    if suffix == ".toml":
        content = parsing.parse_toml(text, str(path))
        if isinstance(content.get("datasets"), list):
            raise MaquetteError(
                f"{path} is a data set file, which lists photos and trains nothing; name it as the photos: "
                f"maquette train {path}."
            )
        values = _flat(content)
        _require_known(values, path)
        return Source(path, values)
    return _from_script(text, path)


def _require_known(values: dict[str, Any], path: Path) -> None:
    """Refuse a file of keys none of which is Kohya's."""
    if not any(key in OPTIONS or key in FIELDS or key in RENAMED for key in values):
        raise MaquetteError(
            f"{path} has no option of Kohya's trainer; give the file that kohya_ss or you saved for it."
        )


def read_text(path: Path) -> str:
    """The text of a configuration, in UTF-8 or, where its first bytes say so, UTF-16 (Notepad, PowerShell)."""
    data = files.read_bytes(path, limits.CONFIGURATION_BYTES, "configuration")
    encoding = next((name for mark, name in ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise MaquetteError(f"{path} is not UTF-8 text (byte {error.start + 1}); save it as UTF-8.") from error
    if encoding == "utf-8" and "\0" in text:
        raise MaquetteError(f"{path} is no text; save it as UTF-8.")
    return text.replace("\r\n", "\n")


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Kohya's trainer passes over section names of its configuration file."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat


def _from_script(text: str, path: Path) -> Source:
    """The one command that calls a training script."""
    script = shells.read_script(text, str(path))
    found = [words for words in script.commands if any(map(script_name, words))]
    if len(found) != 1:
        more = " Leave one in the file." if found else ""
        raise MaquetteError(
            f"{path} has {len(found)} command lines with one of Kohya's training scripts, not one.{more}"
        )
    words = found[0]
    at = next(i for i, word in enumerate(words) if script_name(word))
    before = options(words[:at], str(path), strict=False)
    given = options(words[at + 1 :], str(path))
    source = Source(path, given, script_name(words[at]), script.files, template=False)
    source.processes = _whole(before.get("num_processes", before.get("num-processes", 1)), path)
    _config_file(source)
    return source


def _whole(value: Any, path: Path) -> int:
    if re.fullmatch(r"\d{1,4}", str(value)):
        return max(1, int(value))
    raise MaquetteError(f"{path}: num_processes = {str(value)[:60]} is not a whole number.")


def _config_file(source: Source) -> None:
    """--config_file names a TOML of options, over which the command line wins."""
    name = source.given.pop("config_file", None)
    if name is None:
        return
    name = str(name) if str(name).endswith(".toml") else f"{name}.toml"
    text = source.text_of(name)
    if text is None:
        raise MaquetteError(f"{source.path}: its config_file {name} is not there; put it beside, or import it itself.")
    source.given = _flat(parsing.parse_toml(text, name)) | source.given
