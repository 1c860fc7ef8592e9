"""Everything needed to go on as if nothing had happened, in state/NNNNNN; the manifest, written last, proves it whole.

Random numbers need no state: each step's follow from the seed and its number. No pickles: tensors lie in safetensors
files, everything else in JSON, whose numbers read back exactly.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import MaquetteError
from ...formats import safetensors
from ...methods.base import Attached
from ...run import RunFolder, write_json
from .learning import Average
from .scaling import LossScale

KEPT = 2  # states kept: the last, and the one before until the last is proven
VERSION = 1


def save(
    run: RunFolder,
    step: int,
    attached: Attached,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    scale: LossScale,
) -> Path:
    """Write the state after `step` steps and forget all but the last two."""
    folder = run.state(step)
    safetensors.save(attached.state(), folder / "adapter.safetensors")
    tensors, values = _flatten(optimizer.state_dict())
    safetensors.save(tensors, folder / "optimizer.safetensors")
    write_json(folder / "optimizer.json", values)
    if average is not None:
        kept = {f"{i:05d}": value for i, value in enumerate(average.values)}
        safetensors.save(kept, folder / "average.safetensors", {"count": str(average.count)})
    files = {file.name: safetensors.file_sha256(file) for file in sorted(folder.iterdir()) if file.suffix != ".part"}
    files.pop("manifest.json", None)
    told = {"version": VERSION, "step": step, "files": files, "loss_scale": scale.state()}
    write_json(folder / "manifest.json", told)
    for old in sorted(run.state(0).parent.iterdir())[:-KEPT]:
        shutil.rmtree(old)
    return folder


def latest(run: RunFolder) -> tuple[int, Path] | None:
    """Step and folder of the newest state that is whole; None when the run never got so far."""
    for folder in sorted(run.state(0).parent.glob("[0-9]*"), reverse=True):
        if step := _whole(folder):
            return step, folder
    return None


def clear_newer(run: RunFolder, step: int) -> None:
    """Remove what a kill or a full disk left of states after `step`, to have their room back."""
    for folder in run.state(0).parent.glob("[0-9]*"):
        if int(folder.name) > step:
            shutil.rmtree(folder)


def _whole(folder: Path) -> int | None:
    """The step of a state whose manifest is there and whose files are as it says."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            raise MaquetteError(f"{folder} was written by another version of maquette; start the run anew.")
        intact = all(safetensors.file_sha256(folder / name) == sha for name, sha in manifest["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return int(manifest["step"]) if intact else None


def load(
    folder: Path, attached: Attached, optimizer: torch.optim.Optimizer, average: Average | None, scale: LossScale
) -> None:
    """Put a state back into freshly made parts of the same kind."""
    scale.load_state(json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("loss_scale", {}))
    attached.load_state(safetensors.load(folder / "adapter.safetensors"))
    values = json.loads((folder / "optimizer.json").read_text(encoding="utf-8"))
    optimizer.load_state_dict(_unflatten(safetensors.load(folder / "optimizer.safetensors"), values))
    if average is not None:
        header = safetensors.read_header(folder / "average.safetensors")
        stored = safetensors.load(folder / "average.safetensors", header)
        average.count = int(header.metadata["count"])
        for i, value in enumerate(average.values):
            value.copy_(stored[f"{i:05d}"])


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
