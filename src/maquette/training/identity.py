"""Which run a state belongs to: its settings, photos and base, written in its manifest, compared before use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..config import TrainConfig
from ..data.dataset import Dataset, manifest
from ..families.base import BaseModel

FREE_TO_CHANGE = {
    "steps", "gradient_accumulation", "gradient_checkpointing", "save_every_steps", "save_every_epochs", "save_dtype",
    "keep_last", "keep_steps", "keep_state", "trackers", "sample_prompts", "sample_seed", "sample_steps",
    "sample_cfg_scale", "choose", "stop", "preferred_weight",
}  # fmt: skip
# Where things lie, and how this computer computes: contents are compared, and a warning says what is not as it was.
_PLACES = {"photos", "base", "vae", "out", "reg", "from_lora", "device", "dtype", "epochs"}
PHOTO_FACTS = ("name", "sha256", "caption", "repeats", "role", "bucket")


def settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide the weights, as JSON has them."""
    kept: dict[str, Any] = config.model_dump(mode="json", exclude_none=True, exclude=FREE_TO_CHANGE | _PLACES)
    return kept


def of_run(config: TrainConfig, dataset: Dataset, base: BaseModel) -> dict[str, Any]:
    """What a manifest tells of its run."""
    return {"settings": settings(config), "photos": _photos(dataset), "base": base.content_hash, "vae": base.vae_hash}


def other_settings(run: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """Keys of run.toml that are not as they were when the state was written; versions may know more or fewer keys."""
    if "settings" not in run:  # by a version that did not say
        return []
    before, now = run["settings"], settings(config)
    if not isinstance(before, dict):
        return ["settings"]
    before = TrainConfig.in_new_names(before)
    known = TrainConfig.model_fields.keys()
    return [key for key in before.keys() | now.keys() if key in known and _differ(key, before, now)]


def _differ(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    usual = TrainConfig.model_fields[key].default
    return bool(before.get(key, usual) != now.get(key, usual))


def other_contents(run: Mapping[str, Any], dataset: Dataset, base: BaseModel) -> list[str]:
    """What of "photos", "base" and "vae" is not what the run began with."""
    now = {"photos": _photos(dataset), "base": base.content_hash, "vae": base.vae_hash}
    return [key for key, value in now.items() if key in run and run[key] != value]


def photo_facts(photos: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Of each photo in dataset.json, what decides the weights."""
    return [tuple(str(photo.get(key)) for key in PHOTO_FACTS) for photo in photos]


def _photos(dataset: Dataset) -> str:
    return hashlib.sha256(json.dumps(photo_facts(manifest(dataset)["photos"])).encode()).hexdigest()
