"""Everything needed to go on as if nothing had happened, in state/NNNNNN; the manifest, written last, proves it whole.

Random numbers need no state: each step's follow from the seed and its number. No pickles: tensors lie in safetensors
files, everything else in JSON, whose numbers read back exactly. A state may come from a stranger: nothing of it is used
before its types, names, shapes and numbers are those that this run writes.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import MaquetteError
from ..files import write_json
from ..formats import safetensors
from ..methods.base import Attached
from ..parsing import read_object
from ..run_folder import RunFolder
from .ema import EMA
from .grad_scaler import GradScaler

KEPT = 2  # states kept: the last, and the one before until the last is proven
VERSION = 1
MANIFEST = "manifest.json"
NEEDED = ("adapter.safetensors", "optimizer.safetensors", "optimizer.json")
AVERAGE = "average.safetensors"
LARGEST_MANIFEST, LARGEST_OPTIMIZER = 1_000_000, 64_000_000  # bytes


def save(
    run: RunFolder,
    step: int,
    attached: Attached,
    optimizer: torch.optim.Optimizer,
    ema: EMA | None,
    scaler: GradScaler,
    identity: Mapping[str, Any],
) -> Path:
    """Write the state after `step` steps and forget all but the last two. identity: which run it belongs to."""
    folder = run.state(step)
    safetensors.save(attached.state(), folder / "adapter.safetensors")
    tensors, values = _flatten(optimizer.state_dict())
    safetensors.save(tensors, folder / "optimizer.safetensors")
    write_json(folder / "optimizer.json", values)
    if ema is not None:
        kept = {f"{i:05d}": value for i, value in enumerate(ema.values)}
        safetensors.save(kept, folder / AVERAGE, {"count": str(ema.count)})
    written = [*NEEDED, *([] if ema is None else [AVERAGE])]
    files = {name: safetensors.file_sha256(folder / name) for name in sorted(written)}
    manifest = {"version": VERSION, "step": step, "files": files, "loss_scale": scaler.state(), "run": dict(identity)}
    write_json(folder / MANIFEST, manifest)
    for old in list(run.states().values())[:-KEPT]:
        shutil.rmtree(old)
    return folder


def latest(run: RunFolder) -> tuple[int, Path] | None:
    """Step and folder of the newest state that is whole; None when there is none."""
    return survey(run)[0]


def survey(run: RunFolder) -> tuple[tuple[int, Path] | None, dict[int, str]]:
    """The newest whole state, and by step what is wrong with each that is newer.

    A state that was cut short before its checkpoint was written is what a kill leaves, and no damage.
    """
    faults: dict[int, str] = {}
    for step, folder in reversed(run.states().items()):
        fault = _fault(folder, step)
        if fault is None:
            return (step, folder), faults
        if (folder / MANIFEST).exists() or run.checkpoint(step).exists():
            faults[step] = fault
    return None, faults


def clear_newer(run: RunFolder, step: int) -> None:
    """Remove what a kill or a full disk left of states after `step`, to have their room back."""
    for number, folder in run.states().items():
        if number > step:
            shutil.rmtree(folder)


def manifest_run(folder: Path) -> dict[str, Any]:
    """What a whole state's manifest tells of its run; {} of states of older versions."""
    run = _manifest(folder).get("run", {})
    return run if isinstance(run, dict) else {}


def _manifest(folder: Path) -> dict[str, Any]:
    return read_object(folder / MANIFEST, LARGEST_MANIFEST)


def _fault(folder: Path, step: int) -> str | None:
    """Why a state cannot be used, as a sentence without its full stop; None for one that is whole."""
    try:
        manifest = _manifest(folder)
    except MaquetteError as error:
        return str(error).rstrip(".")
    version, files, scale = manifest.get("version"), manifest.get("files"), manifest.get("loss_scale", {})
    if isinstance(version, int) and version > VERSION:
        raise MaquetteError(f"{folder} was written by another version of maquette; start the run anew.")
    allowed = {*NEEDED, AVERAGE}
    if (
        version != VERSION
        or not isinstance(files, dict)
        or not set(NEEDED) <= files.keys() <= allowed
        or not all(isinstance(sha, str) for sha in files.values())
        or not isinstance(scale, dict)
    ):
        return f"{folder / MANIFEST} is damaged: it is not what a run writes"
    if manifest.get("step") != step or isinstance(manifest.get("step"), bool):
        return f"{folder / MANIFEST} is of another step"
    for name, sha in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if safetensors.file_sha256(path) != sha:
            return f"{path} is {'empty' if path.stat().st_size == 0 else 'damaged: it is not as it was written'}"
    return None


def load(
    folder: Path, attached: Attached, optimizer: torch.optim.Optimizer, ema: EMA | None, scaler: GradScaler
) -> None:
    """Put a whole state back into freshly made parts of the same kind.

    Raises MaquetteError, before anything is changed, when it is not one of such a run.
    """
    found = _like(folder / "adapter.safetensors", attached.state())
    values = read_object(folder / "optimizer.json", LARGEST_OPTIMIZER)
    try:
        restored = _unflatten(safetensors.load(folder / "optimizer.safetensors"), values)
        _check_optimizer(restored, optimizer)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _strange(folder / "optimizer.json") from error
    count = 0
    if ema is not None:
        kept = _like(folder / AVERAGE, {f"{i:05d}": value for i, value in enumerate(ema.values)})
        count = _count(folder / AVERAGE)
    scaled = _manifest(folder).get("loss_scale", {})
    if scaled and not all(_is_number(scaled.get(key)) and scaled[key] >= 0 for key in ("scale", "good")):
        raise _strange(folder / MANIFEST)
    scaler.load_state(scaled)
    attached.load_state(found)
    optimizer.load_state_dict(restored)
    if ema is not None:
        ema.count = count
        for value, stored in zip(ema.values, kept.values(), strict=True):
            value.copy_(stored)


def _strange(path: Path) -> MaquetteError:
    return MaquetteError(
        f"{path} does not fit this run: it is damaged or of another run. Nothing was changed; put it back, or remove "
        f"{path.parent} to go on from the state before, if there is one."
    )


def _like(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, in the order of `wanted`; their names, shapes and kinds must be those, and finite."""
    found = safetensors.load(path)
    if found.keys() != wanted.keys():
        raise _strange(path)
    for name, tensor in wanted.items():
        same = found[name].shape == tensor.shape and found[name].dtype == tensor.dtype
        if not same or not torch.isfinite(found[name]).all():
            raise _strange(path)
    return {name: found[name] for name in wanted}


def _count(path: Path) -> int:
    count = safetensors.read_metadata(path).get("count", "")
    if not re.fullmatch(r"\d{1,18}", count):
        raise _strange(path)
    return int(count)


def _check_optimizer(found: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError unless groups and tensors are those of such an optimizer. Its own code may not look, and would
    read past the end of a tensor that is too short.
    """
    groups = optimizer.param_groups
    if len(found["param_groups"]) != len(groups):
        raise ValueError("groups")
    parameters: list[Tensor] = []
    for stored, mine in zip(found["param_groups"], groups, strict=True):
        if stored["params"] != list(range(len(parameters), len(parameters) + len(mine["params"]))):
            raise ValueError("parameters")
        parameters += mine["params"]
        for key in (stored.keys() & mine.keys()) - {"params"}:
            _check_value(stored[key], mine[key])
    whole = type(optimizer).__name__ != "Adafactor"  # which keeps sums of rows and columns
    for index, entry in found["state"].items():
        if not 0 <= index < len(parameters):
            raise ValueError("parameters")
        numbers = parameters[index].numel()
        blocks = {256, -(-numbers // 256), -(-numbers // 2048)} if "8bit" in type(optimizer).__name__ else set()
        for value in entry.values():
            if isinstance(value, Tensor):
                sizes = {1, numbers, *blocks} if whole else range(numbers + 1)
                if value.numel() not in sizes or not torch.isfinite(value.float()).all():
                    raise ValueError("tensors")
            elif value is not None and not isinstance(value, bool) and not _is_number(value):
                raise ValueError("values")


def _check_value(stored: Any, mine: Any) -> None:
    if isinstance(stored, Tensor) or stored == mine:
        return
    if isinstance(mine, tuple | list):
        if not isinstance(stored, tuple | list) or len(stored) != len(mine) or not all(map(_is_number, stored)):
            raise ValueError("numbers")
    elif isinstance(mine, int | float) and not isinstance(mine, bool):
        if not _is_number(stored):
            raise ValueError("number")
    elif isinstance(mine, bool | str) and type(stored) is not type(mine):
        raise ValueError("kind")


def _is_number(value: Any) -> bool:
    """Whether it is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state_dict as tensors by name and JSON values, in which a tensor is {"tensor": name}."""
    tensors: dict[str, Tensor] = {}

    def walk(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            tensors[name] = value
            return {"tensor": name}
        if isinstance(value, dict):
            return {str(key): walk(inner, f"{name}.{key}") for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [walk(inner, f"{name}.{i}") for i, inner in enumerate(value)]
        return value

    values = {key: walk(value, key) for key, value in state.items()}
    return tensors, values


def _unflatten(tensors: dict[str, Tensor], values: dict[str, Any]) -> dict[str, Any]:
    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            if set(value) == {"tensor"}:
                return tensors[value["tensor"]].clone()
            return {key: walk(inner) for key, inner in value.items()}
        return [walk(inner) for inner in value] if isinstance(value, list) else value

    state: dict[str, Any] = walk(values)
    state["state"] = {int(index): entry for index, entry in state["state"].items()}
    for group in state["param_groups"]:
        group.update({key: tuple(v) for key, v in group.items() if isinstance(v, list) and key != "params"})
    return state
