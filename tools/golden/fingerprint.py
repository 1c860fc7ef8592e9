"""What is compared of a file: a hash of its bytes, and enough besides to say in which part two files differ."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

Fingerprint = dict[str, Any]

# Keys of JSON results that differ between two runs of the same program, or between two machines.
_LONG = 100_000  # bytes of a JSON file, such as a tokenizer's, that is hashed as a whole
_PASSING = {"seconds", "effort", "free_bytes", "device", "modified"}


def of_file(path: Path, root: Path) -> Fingerprint:
    """A file's fingerprint; every text in it is freed of the path of the work folder, `root`."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        return _safetensors(content)
    if path.suffix == ".png":
        return _png(path, content)
    if path.suffix == ".json" and len(content) < _LONG:
        return of_json(json.loads(content), root)
    return {"sha256": _hash(content)}


def of_folder(folder: Path, root: Path) -> dict[str, Fingerprint]:
    """Fingerprints of all files of a folder, by their names inside it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): of_file(file, root) for file in files}


def of_json(value: Any, root: Path) -> Fingerprint:
    """A JSON value without what passes (times, devices) and without the path of the work folder."""
    return {"json": _lasting(value, str(root))}


def _lasting(value: Any, root: str) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(inner, root) for key, inner in value.items() if key not in _PASSING}
    if isinstance(value, list):
        return [_lasting(inner, root) for inner in value]
    return value.replace(root, "ROOT") if isinstance(value, str) else value


def _safetensors(content: bytes) -> Fingerprint:
    """The header is read by hand: the reader of the program under test is no judge of its own files."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    digest = hashlib.sha256()
    for name, entry in sorted(header.items()):
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode() + content[begin:end])
    return {"sha256": _hash(content), "tensors": digest.hexdigest(), "names": len(header), "metadata": metadata}


def _png(path: Path, content: bytes) -> Fingerprint:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        text = {key: value for key, value in image.info.items() if isinstance(value, str)}
        return {"sha256": _hash(content), "pixels": _hash(image.tobytes()), "text": text}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def differences(before: Any, now: Any, at: str = "") -> list[str]:
    """A line for each value that two fingerprints do not share."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in [*before, *(key for key in now if key not in before)]:
            inner = f"{at}: {key}" if at else key
            if key not in now:
                lines.append(f"{inner} is gone")
            elif key not in before:
                lines.append(f"{inner} is new: {_short(now[key])}")
            else:
                lines += differences(before[key], now[key], inner)
        return lines
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [
            line for i, pair in enumerate(zip(before, now, strict=True)) for line in differences(*pair, f"{at}[{i}]")
        ]
    return [] if before == now else [f"{at}: {_short(before)} -> {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:197]}..."
