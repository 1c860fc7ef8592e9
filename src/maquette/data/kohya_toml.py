"""A Kohya data set file (`--dataset_config`): every key is used, or refused by name with what to do instead."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..files import at_home
from ..parsing import read_toml
from .buckets import ShapeWish
from .caption_options import CaptionOptions
from .dataset import Problem
from .groups import MASK_FOLDERS, Group
from .guess import below
from .images import directly_in, is_photo, walk
from .metadata import read_metadata

_OPTIONS = {
    "caption_prefix": "prefix",
    "caption_suffix": "suffix",
    "enable_wildcard": "wildcards",
    "caption_separator": "separator",
    "keep_tokens": "keep_tokens",
    "keep_tokens_separator": "keep_tokens_separator",
    "shuffle_caption": "shuffle",
    "caption_tag_dropout_rate": "tag_dropout",
    "secondary_separator": "secondary_separator",
    "caption_dropout_rate": "dropout",
}
_SOURCES = {
    "image_dir": str,
    "metadata_file": str,
    "conditioning_data_dir": str,
    "num_repeats": int,
    "class_tokens": str,
    "is_reg": bool,
    "caption_extension": str,
    "alpha_mask": bool,
    "flip_aug": bool,
    "random_crop": bool,
}
_EXTENSIONS = (".caption", ".txt")  # sd-scripts reads the first alone where nothing is said
_LIMITS = {"min_bucket_reso": 256, "max_bucket_reso": 1024, "bucket_reso_steps": 64}  # with Kohya's defaults
_DATASET = {
    "batch_size": int,
    "resolution": object,
    "enable_bucket": bool,
    "bucket_no_upscale": bool,
    **dict.fromkeys(_LIMITS, int),
}
# Refused unless they ask for nothing. Value: what asks for nothing, and the remedy.
_REFUSED: dict[str, tuple[Any, str]] = {
    "network_multiplier": (1.0, "use num_repeats to weigh photos"),
    "validation_split": (0.0, "leave it out"),
    "validation_seed": (None, "leave it out"),
    "resize_interpolation": ("lanczos", "photos are always resized by the Lanczos filter"),
    "color_aug": (False, "leave it out"),
    "face_crop_aug_range": (None, "cut the photos yourself"),
    "token_warmup_min": (1, "leave it out"),
    "token_warmup_step": (0, "leave it out"),
    "caption_dropout_every_n_epochs": (0, "use caption_dropout_rate"),
    "custom_attributes": ({}, "leave it out; see prior_preservation of maquette train"),
    "cache_info": (False, "leave it out: photos are always read again, so nothing can be stale"),
}
_KINDS: dict[str, Any] = {
    **_SOURCES,
    **_DATASET,
    **{key: type(getattr(CaptionOptions(), name)) for key, name in _OPTIONS.items()},
}


@dataclass
class DatasetFile:
    """What the file asks for. settings: by TrainConfig's keys; of several resolutions, the largest."""

    groups: list[Group] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


def read_dataset_file(file: Path, subject: str | None = None) -> DatasetFile:
    """Read the file and list its folders. A value is looked for in the subset, then its dataset, then [general].

    subject: for subsets without class_tokens. Raises MaquetteError naming the key at fault.
    """
    content = _parse(file)
    general = content.get("general", {})
    _check_keys(file, "[general]", general)
    found = DatasetFile()
    for number, dataset in enumerate(_tables(file, content, "datasets"), 1):
        place = f"dataset {number}"
        own = {key: value for key, value in dataset.items() if key != "subsets"}
        _check_keys(file, place, own)
        shape = _training(file, place, {**general, **own}, found)
        for index, subset in enumerate(_tables(file, dataset, "subsets"), 1):
            where = f"{place}, subset {index}"
            _check_keys(file, where, subset, not_in=_DATASET)
            values = {**general, **own, **subset}
            _same(file, where, found, "flip_aug", bool(values.get("flip_aug", False)))
            _same(file, where, found, "random_crop", bool(values.get("random_crop", False)))
            group = replace(_group(file, where, values, subject), shape=shape)
            found.groups.append(group)
            found.problems += below(group.root, group.mask_root)
    if not any(group.role == "instance" for group in found.groups):
        raise MaquetteError(f"{file} names no photos to learn: it has no [[datasets.subsets]] without is_reg.")
    return found


def _parse(file: Path) -> dict[str, Any]:
    content = read_toml(file)
    unknown = content.keys() - {"general", "datasets"}
    if unknown or "datasets" not in content:
        what = f"has the unknown table {min(unknown)!r}" if unknown else "has no [[datasets]]"
        raise MaquetteError(f"{file} {what}; a data set file has [general], [[datasets]] and [[datasets.subsets]].")
    return content


def _tables(file: Path, table: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    tables = table.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise MaquetteError(f"{file}: {key} must be written as [[{key}]].")
    return tables


def _check_keys(file: Path, where: str, table: Any, not_in: Mapping[str, Any] | None = None) -> None:
    """Every key is known, of the right kind, and not one that is refused."""
    if not isinstance(table, dict):
        raise MaquetteError(f"{file}: {where} must be a table.")
    for key, value in table.items():
        if key in _REFUSED:
            nothing, remedy = _REFUSED[key]
            if value != nothing:
                raise MaquetteError(f"{file}, {where}: {key} = {value!r} is not supported; {remedy}.")
        elif key not in _KINDS or (not_in and key in not_in):
            near = difflib.get_close_matches(key, [*_KINDS, *_REFUSED], 1)
            raise MaquetteError(
                f"{file}, {where}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ".")
            )
        else:
            _check_kind(file, where, key, value)


def _check_kind(file: Path, where: str, key: str, value: Any) -> None:
    kind = _KINDS[key]
    accepted: tuple[type, ...] = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind not in (bool, object)):
        raise MaquetteError(f"{file}, {where}: {key} = {value!r} should be of the kind {kind.__name__}.")
    if kind is float and isinstance(value, int | float) and not 0 <= value <= 1:
        raise MaquetteError(f"{file}, {where}: {key} = {value!r} should be a share, from 0 to 1.")
    if kind is int and isinstance(value, int) and value < 0:
        raise MaquetteError(f"{file}, {where}: {key} = {value!r} should not be negative.")


def _training(file: Path, where: str, values: Mapping[str, Any], found: DatasetFile) -> ShapeWish:
    """What a dataset says of shapes. A batch size is of the whole run, so all datasets must agree on it."""
    resolution = None
    if "resolution" in values:
        size = values["resolution"]
        sides = size if isinstance(size, list) else [size, size]
        if len(sides) != 2 or not all(type(side) is int and side >= 16 and side % 8 == 0 for side in sides):
            raise MaquetteError(
                f"{file}, {where}: resolution = {size!r} should be a number or [width, height], multiples of 8."
            )
        resolution = (sides[0], sides[1])
        side = max(16, round(math.sqrt(sides[0] * sides[1]) / 8) * 8)
        found.settings["resolution"] = max(side, found.settings.get("resolution", 0))
    if "batch_size" in values:
        _same(file, where, found, "batch_size", values["batch_size"])
    buckets = values.get("enable_bucket", False)
    found.settings["buckets"] = buckets or found.settings.get("buckets", False)
    low, high, step = (values.get(key, default) for key, default in _LIMITS.items())
    if step < 1:
        raise MaquetteError(f"{file}, {where}: bucket_reso_steps = {step} should be at least 1.")
    limits = (low // step * step, -(-high // step) * step, step)
    given = any(key in values for key in _LIMITS)
    return ShapeWish(resolution, buckets, limits, values.get("bucket_no_upscale", False), given)


def _same(file: Path, where: str, found: DatasetFile, key: str, value: Any) -> None:
    if found.settings.setdefault(key, value) != value:
        known = found.settings[key]
        raise MaquetteError(
            f"{file}, {where}: {key} {value!r} differs from {known!r} before; one run has one {key}, so make two runs."
        )


def _group(file: Path, where: str, values: Mapping[str, Any], subject: str | None) -> Group:
    metadata = (
        read_metadata(_path(file, values["metadata_file"], Path.is_file, where)) if "metadata_file" in values else None
    )
    if "image_dir" in values:
        root = _path(file, values["image_dir"], Path.is_dir, where)
    elif metadata:
        root = metadata.file.parent
    else:
        raise MaquetteError(f"{file}, {where}: image_dir is missing.")
    if values.get("num_repeats", 1) < 1:
        raise MaquetteError(f"{file}, {where}: num_repeats must be at least 1; remove the subset to leave it out.")
    extensions = [values["caption_extension"]] if values.get("caption_extension") else list(_EXTENSIONS)
    mask_root, masks = _masks(file, where, values, root)
    return Group(
        root=root,
        files=list(directly_in(root)),
        subject=values.get("class_tokens") or subject or "",
        repeats=values.get("num_repeats", 1),
        role="class" if values.get("is_reg") else "instance",
        options=CaptionOptions(**{name: values[key] for key, name in _OPTIONS.items() if key in values}),
        extensions=[end if end.startswith(".") else f".{end}" for end in extensions],
        metadata=metadata,
        alpha_mask=values.get("alpha_mask", False),
        masks=masks,
        mask_root=mask_root,
        lines="first",
        literal=bool(values.get("class_tokens")),
    )


def _masks(file: Path, where: str, values: Mapping[str, Any], root: Path) -> tuple[Path | None, list[Path]]:
    """Folder and files of the masks: the one that is named, else `masks` among the photos."""
    if "conditioning_data_dir" in values:
        folder: Path | None = _path(file, values["conditioning_data_dir"], Path.is_dir, where)
    else:
        folder = next(
            (sub for sub in sorted(root.iterdir()) if sub.is_dir() and sub.name.lower() in MASK_FOLDERS), None
        )
    return folder, [mask for mask in walk(folder) if is_photo(mask)] if folder else []


def _path(file: Path, name: str, exists: Callable[[Path], bool], where: str) -> Path:
    """A path of the file: absolute, relative to the file's folder, or to the current folder."""
    for path in (file.parent / at_home(name), at_home(name)):
        if exists(path):
            return path
    raise MaquetteError(f"{file}, {where}: there is no {name}.")
