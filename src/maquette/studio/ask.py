"""Questions that need torch, answered by a process of their own: `python -m maquette.studio.ask`, JSON in and out.

base: what a base is. kohya: the command of Kohya's trainer. caption: a picture in words.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ..config import TrainConfig
from ..data.buckets import plan
from ..data.dataset import Dataset, Photo
from ..errors import MaquetteError
from ..families.loading import find
from ..training import costs, defaults
from .presets import system_memory


def base(question: Mapping[str, Any]) -> dict[str, Any]:
    """Family, sizes and usual values of a base, and the device that would train on it."""
    facts = costs.base_facts(question["base"])
    checkpoint = find(question["base"])
    recipe, cuda = facts.recipe, torch.cuda.is_available()
    return {
        "family": checkpoint.spec.name, "native_size": facts.native_size, "latent_factor": facts.latent_factor,
        "buckets": recipe.buckets, "batch_size": recipe.batch_size_cuda if cuda else recipe.batch_size,
        "flow": checkpoint.scheduler.get("prediction_type") == "flow", "cuda": cuda,
        "device": torch.cuda.get_device_name() if cuda else "CPU", "memory_bytes": _memory(cuda),
    }  # fmt: skip


def _memory(cuda: bool) -> int | None:
    """Of the card, or of the computer; None where the system does not tell."""
    if cuda:
        return int(torch.cuda.get_device_properties(0).total_memory)
    return system_memory("MemTotal")


def planned(sizes: list[list[int]], resolution: int, latent_factor: int, buckets: bool) -> Dataset:
    """Photos of these sizes with their buckets; nothing is read."""
    photos = [
        Photo(Path(f"{i}.png"), f"{i}.png", "0" * 64, (width, height), "", "")
        for i, (width, height) in enumerate(sizes)
    ]
    return plan(Dataset(Path("."), "plain", photos), resolution, latent_factor, aspect_buckets=buckets)


def kohya(question: Mapping[str, Any]) -> dict[str, Any]:
    """The command of Kohya's trainer that equals a training, and what has no equal there."""
    from ..stages.command import command_for

    config = TrainConfig.parse(question["config"], "the training")
    checkpoint = find(config.base)
    device = defaults.pick_device("auto")
    dtype = defaults.pick_dtype("auto", device, config.method)
    known: Any = SimpleNamespace(spec=checkpoint.spec, device=device, scheduler_config=checkpoint.scheduler)
    spec = checkpoint.spec
    dataset = planned(question["sizes"], spec.native_size, spec.latent_factor, spec.name != "pocket")
    resolved = defaults.resolve(config, known, dataset, dtype).model_copy(update={"photos": config.photos})
    facts = {"ss_base_model_version": spec.base_model_version, "modelspec.architecture": spec.architecture}
    return command_for(resolved, "kohya", facts).to_json()


def caption(question: Mapping[str, Any]) -> dict[str, Any]:
    """A picture in words. Raises MaquetteError where the captioner's weights are not there."""
    from ..stages.captioners import open_captioner

    path = Path(question["image"])
    describe = open_captioner(question["captioner"])
    return {"caption": describe(Photo(path, path.name, "", (0, 0), "", ""))}


ANSWERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "base": base, "kohya": kohya, "caption": caption,
}  # fmt: skip


def main() -> None:
    """Answer one question from stdin."""
    question = json.load(sys.stdin)
    try:
        reply: dict[str, Any] = {"answer": ANSWERS[question["ask"]](question)}
    except MaquetteError as error:
        reply = {"error": str(error)}
    print(json.dumps(reply))


if __name__ == "__main__":
    main()
